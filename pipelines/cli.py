"""`elcrec-pipeline`: compile the pipelines, run them on a cluster or on this machine, and follow runs."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from elcrec.errors import UserError
from elcrec.process import set_up_process
from pipelines import cluster_cli, local_cli
from pipelines.settings import PIPELINES, add_cluster_settings, add_settings, build_pipeline, compile_to

Options = argparse.Namespace


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; return its exit status: 1 after a failed run, 2 after a user's mistake, 130 after Ctrl-C."""
    set_up_process()
    given = sys.argv[1:] if arguments is None else list(arguments)
    try:
        local_cli.refuse_earlier_spelling(given)
        options = _parser().parse_args(given)
        return int(options.command(options))
    except UserError as error:
        print(f"elcrec-pipeline: error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        return 130


def _compile(options: Options) -> int:
    output = options.output or Path(f"build/{options.pipeline or PIPELINES[0]}.yaml")
    if output.suffix not in {".yaml", ".yml"}:
        raise UserError("the name of a package must end in .yaml", where=output)
    output.parent.mkdir(parents=True, exist_ok=True)
    compile_to(output, build_pipeline(options))
    print(f"wrote {output}: upload it in the Kubeflow UI (Pipelines, Upload pipeline)")
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="elcrec-pipeline", description="The Kubeflow pipelines.")
    commands = parser.add_subparsers(title="commands", required=True, metavar="COMMAND")
    _add_compile(commands)
    local_cli.add_command(commands)
    cluster_cli.add_commands(commands)
    return parser


def _add_compile(commands: Any) -> None:
    text = "write the package that the Kubeflow UI takes"
    sub = commands.add_parser("compile", help=text, description=text)
    sub.set_defaults(command=_compile)
    add_settings(sub)
    add_cluster_settings(sub)
    sub.add_argument("--output", type=Path, metavar="FILE", help="(default build/PIPELINE.yaml)")
