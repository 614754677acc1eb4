"""`elcrec-pipeline`: compile the pipelines, run them on a cluster or on this machine, and follow runs."""

import argparse
import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from elcrec.config import load_config
from elcrec.errors import UserError
from pipelines.cluster_cli import add_commands
from pipelines.cluster_cli import submit as submit_to_cluster
from pipelines.platform import Platform, load_platform

Options = argparse.Namespace
PIPELINES = ("training", "retraining", "sweep", "recommendation")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; return its exit status: 1 after a failed run, 2 after a user's mistake, 130 after Ctrl-C."""
    options = _parser().parse_args(arguments)
    try:
        return int(options.command(options))
    except UserError as error:
        print(f"elcrec-pipeline: error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        return 130


def _compile(options: Options) -> int:
    output = options.output or Path(f"build/{options.pipeline}.yaml")
    if output.suffix not in {".yaml", ".yml"}:
        raise UserError("a package ends in .yaml", where=output)
    output.parent.mkdir(parents=True, exist_ok=True)
    _compile_to(output, _pipeline(options))
    print(f"wrote {output}: upload it in the Kubeflow UI (Pipelines, Upload pipeline)")
    return 0


def _submit(options: Options) -> int:
    if not options.local:
        return submit_to_cluster(options)
    if options.package:
        raise UserError("--local compiles what it runs", fix="leave --package away")
    return _run_here(options)


def _run_here(options: Options) -> int:
    from pipelines.local import docker_runner, run, subprocess_runner

    pipeline = _pipeline(options)
    arguments = _checked(pipeline, dict(options.arguments))
    store, workspace = options.store.absolute(), (options.root / "workspace").absolute()
    variables = _platform(options).variables
    runner = docker_runner(store, workspace, variables=variables) if options.docker else subprocess_runner()
    inputs = pipeline.component_spec.inputs
    places = {"store": str(store)} | ({"workspace": str(workspace)} if "workspace" in inputs else {})
    try:
        folder = run(pipeline, arguments | places, runner=runner, root=options.root, cache=options.cache)
    except RuntimeError as error:
        print(f"elcrec-pipeline: the run failed: {error}", file=sys.stderr)
        return 1
    print(f"outputs: {folder}")
    return 0


def _checked(pipeline: Any, arguments: Mapping[str, str]) -> dict[str, Any]:
    """The arguments of a run in the types that the pipeline declares; what it would refuse is refused here."""
    from pipelines.package import load_package

    with TemporaryDirectory() as scratch:
        path = Path(scratch, "pipeline.yaml")
        _compile_to(path, pipeline)
        return load_package(path).resolve(arguments)


def _compile_to(path: Path, pipeline: Any) -> None:
    from kfp import compiler

    compiler.Compiler().compile(pipeline, str(path))


def _pipeline(options: Options) -> Any:
    from pipelines.recommendation import recommendation
    from pipelines.training import retraining, sweep, training

    build = dict(zip(PIPELINES, (training, retraining, sweep, recommendation), strict=True))[options.pipeline]
    config = load_config(options.params, presets=options.presets)
    return build(config, _platform(options))


def _platform(options: Options) -> Platform:
    return load_platform(options.platform, _platform_changes(options))


def _platform_changes(options: Options) -> dict[str, Any]:
    """What the command line replaces in platform.yaml."""
    claims = {"store": options.store_claim, "workspace": options.workspace_claim}
    changes = {
        "image": options.image,
        "nodes": options.nodes,
        "claims": {name: claim for name, claim in claims.items() if claim is not None},
        "accelerator": {} if options.accelerators is None else {"count": options.accelerators},
    }
    return {name: value for name, value in changes.items() if value is not None}


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="elcrec-pipeline", description="The Kubeflow pipelines.")
    commands = parser.add_subparsers(title="commands", required=True, metavar="COMMAND")
    _add_compile(commands)
    _add_local(add_commands(commands, add_settings=_add_settings, build=_pipeline))
    return parser


def _add_compile(commands: Any) -> None:
    sub = commands.add_parser("compile", help="write the package that the Kubeflow UI takes")
    sub.set_defaults(command=_compile)
    _add_settings(sub)
    sub.add_argument("--output", type=Path, metavar="FILE", help="(default build/PIPELINE.yaml)")


def _add_local(submit: argparse.ArgumentParser) -> None:
    """What `submit --local` takes on top of what every run has."""
    submit.set_defaults(command=_submit)
    sub = submit.add_argument_group("without a cluster")
    sub.add_argument("--local", action="store_true", help="run the pipeline's components on this machine")
    sub.add_argument("--docker", action="store_true", help="each component in a container of --image")
    root, store = Path("local_outputs"), Path("artifacts/store")
    sub.add_argument("--root", type=Path, default=root, metavar="DIR", help=f"artifacts of the runs (default {root})")
    sub.add_argument("--store", type=Path, default=store, metavar="DIR", help=f"(default {store})")


def _add_settings(sub: argparse.ArgumentParser) -> None:
    names = ", ".join(PIPELINES)
    sub.add_argument("pipeline", nargs="?", choices=PIPELINES, default=PIPELINES[0], metavar="PIPELINE", help=names)
    params, platform = Path("params.yaml"), Path("pipelines/platform.yaml")
    sub.add_argument("--params", type=Path, default=params, metavar="FILE", help=f"(default {params})")
    sub.add_argument("--preset", dest="presets", type=Path, action="append", default=[], metavar="FILE")
    sub.add_argument("--platform", type=Path, default=platform, metavar="FILE", help=f"(default {platform})")
    sub.add_argument("--image", default=os.environ.get("ELCREC_IMAGE"), help="image of every component")
    sub.add_argument("--accelerators", type=int, metavar="N", help="GPUs that training asks for on a node")
    sub.add_argument("--nodes", type=int, metavar="N", help="nodes that training runs on")
    sub.add_argument("--store-claim", metavar="NAME", help="PersistentVolumeClaim of the store, mounted at /store")
    sub.add_argument("--workspace-claim", metavar="NAME", help="PersistentVolumeClaim of checkpoints")
