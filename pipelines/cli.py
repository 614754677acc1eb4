"""`elcrec-pipeline`: compile the training pipeline, or run it on this machine."""

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from components._image import IMAGE
from elcrec.config import load_config
from elcrec.errors import UserError

Options = argparse.Namespace


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; return its exit status (1 after a failed run, 2 after a user's mistake)."""
    options = _parser().parse_args(arguments)
    try:
        return int(options.command(options))
    except UserError as error:
        print(f"elcrec-pipeline: error: {error}", file=sys.stderr)
        return 2


def _compile(options: Options) -> int:
    from kfp import compiler

    if options.output.suffix not in {".yaml", ".yml", ".json"}:
        raise UserError("a package ends in .yaml", where=options.output)
    options.output.parent.mkdir(parents=True, exist_ok=True)
    compiler.Compiler().compile(_pipeline(options), str(options.output))
    print(f"wrote {options.output}: upload it in the Kubeflow UI (Pipelines, Upload pipeline)")
    return 0


def _run_local(options: Options) -> int:
    from pipelines.local import docker_runner, run, subprocess_runner

    store = options.store.absolute()
    runner = docker_runner(store) if options.docker else subprocess_runner()
    arguments = {"store": str(store), **_arguments(options)}
    try:
        folder = run(_pipeline(options), arguments, runner=runner, root=options.root, cache=options.cache)
    except RuntimeError as error:
        print(f"elcrec-pipeline: the run failed: {error}", file=sys.stderr)
        return 1
    print(f"outputs: {folder}")
    return 0


def _pipeline(options: Options) -> Any:
    from pipelines.training import Settings, build

    config = load_config(options.params, presets=options.presets)
    fields = ("image", "accelerator", "accelerators", "store_claim")
    return build(config, Settings(**{name: getattr(options, name) for name in fields}))


def _arguments(options: Options) -> dict[str, str]:
    names = ("dataset", "dvc_repository", "dvc_revision", "dvc_path", "dvc_md5", "overrides")
    return {name: value for name in names if (value := getattr(options, name)) is not None}


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="elcrec-pipeline", description="The Kubeflow training pipeline.")
    commands = parser.add_subparsers(title="commands", required=True, metavar="COMMAND")
    _add_compile(commands)
    _add_run_local(commands)
    return parser


def _add_compile(commands: Any) -> None:
    sub = commands.add_parser("compile", help="write the package that the Kubeflow UI takes")
    sub.set_defaults(command=_compile)
    _add_settings(sub)
    output = Path("build/training_pipeline.yaml")
    sub.add_argument("--output", type=Path, default=output, metavar="FILE", help=f"(default {output})")


def _add_run_local(commands: Any) -> None:
    sub = commands.add_parser("run-local", help="run the pipeline's components on this machine, no cluster")
    sub.set_defaults(command=_run_local)
    _add_settings(sub)
    sub.add_argument("--docker", action="store_true", help="each component in a container of --image")
    sub.add_argument("--cache", action="store_true", help="take components that ran before from the cache")
    sub.add_argument(
        "--root",
        type=Path,
        default=Path("local_outputs"),
        metavar="DIR",
        help="artifacts of the runs (default local_outputs)",
    )
    store = Path("artifacts/store")
    sub.add_argument("--store", type=Path, default=store, metavar="DIR", help=f"(default {store})")
    sub.add_argument("--dataset", metavar="NAME", help="replaces fetch.dataset")
    for name in ("repository", "revision", "path", "md5"):
        sub.add_argument(f"--dvc-{name}", metavar=name.upper(), help=f"parameter dvc_{name} of the pipeline")
    sub.add_argument("--overrides", metavar="JSON", help='such as {"train": {"epochs": 5}}')


def _add_settings(sub: argparse.ArgumentParser) -> None:
    params = Path("params.yaml")
    sub.add_argument("--params", type=Path, default=params, metavar="FILE", help=f"(default {params})")
    sub.add_argument("--preset", dest="presets", type=Path, action="append", default=[], metavar="FILE")
    image = os.environ.get("ELCREC_IMAGE", IMAGE)
    sub.add_argument("--image", default=image, help=f"image of every component (default {image})")
    sub.add_argument("--accelerator", default="nvidia.com/gpu", help="resource that training asks for")
    sub.add_argument("--accelerators", type=int, default=0, metavar="N", help="how many (default 0: CPU)")
    claim = "PersistentVolumeClaim mounted at /store, where the store then lives"
    sub.add_argument("--store-claim", default="", metavar="NAME", help=claim)
