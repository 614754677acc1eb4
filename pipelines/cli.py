"""`elcrec-pipeline`: compile the pipelines, run them on a cluster or on this machine, and follow runs."""

import argparse
import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from elcrec.config import load_config
from elcrec.errors import UserError
from elcrec.process import set_up_process
from pipelines.cluster_cli import add_commands
from pipelines.cluster_cli import submit as submit_to_cluster
from pipelines.options import CLUSTER, LOCAL, arguments_of, refuse
from pipelines.platform import Platform, load_platform

if TYPE_CHECKING:  # importing kfp takes two seconds, which --help should not
    from pipelines.tasks import Places

Options = argparse.Namespace
PIPELINES = ("training", "retraining", "sweep", "recommendation", "monitoring")
PARAMS, PLATFORM = Path("params.yaml"), Path("pipelines/platform.yaml")
ROOT, STORE = Path("local_outputs"), Path("artifacts/store")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; return its exit status: 1 after a failed run, 2 after a user's mistake, 130 after Ctrl-C."""
    set_up_process()
    options = _parser().parse_args(arguments)
    try:
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
    _compile_to(output, _pipeline(options))
    print(f"wrote {output}: upload it in the Kubeflow UI (Pipelines, Upload pipeline)")
    return 0


def _submit(options: Options) -> int:
    if not options.local:
        refuse(options, LOCAL, because="only a run with --local has that")
        return submit_to_cluster(options)
    refuse(options, CLUSTER, because="only a run on a cluster has that, not one with --local")
    if not options.docker:
        refuse(options, ["image"], because="components run in an image only with --docker")
    return _run_here(options)


def _run_here(options: Options) -> int:
    from pipelines.local import NO_IMAGE, RECORDED, docker_runner, recording, run, subprocess_runner
    from pipelines.progress import teller
    from pipelines.tasks import Places

    options.image = options.image if options.docker else NO_IMAGE
    root, store = options.root or ROOT, (options.store or STORE).absolute()
    workspace, say = (root / "workspace").absolute(), teller()
    places = Places(store=str(store), workspace=str(workspace))
    pipeline, platform = _pipeline(options, places), _platform(options)
    if platform.nodes > 1:
        raise UserError("--local trains in one process", where=f"nodes: {platform.nodes}", fix="give --nodes 1")
    given = _checked(pipeline, arguments_of(options))
    with recording(root, pipeline.name) as results:
        folders, variables = (store, workspace, results), [*platform.variables, *RECORDED]
        runner = docker_runner(*folders, variables=variables) if options.docker else subprocess_runner()
        done = run(pipeline, given, runner=runner, root=root, say=say)
    say(f"{pipeline.name}: {'SUCCEEDED' if done.succeeded else 'FAILED'}")
    say(f"outputs: {done.folder}" if done.folder else f"no task started, see {done.log}")
    return 0 if done.succeeded else 1


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


def _pipeline(options: Options, places: "Places | None" = None) -> Any:
    from pipelines.monitoring import monitoring
    from pipelines.recommendation import recommendation
    from pipelines.tasks import places_on
    from pipelines.training import retraining, sweep, training

    builders = dict(zip(PIPELINES, (training, retraining, sweep, recommendation, monitoring), strict=True))
    config = load_config(options.params or PARAMS, presets=options.presets)
    platform = _platform(options)
    return builders[options.pipeline or PIPELINES[0]](config, platform, places or places_on(platform))


def _platform(options: Options) -> Platform:
    return load_platform(options.platform or PLATFORM, _platform_changes(options))


def _platform_changes(options: Options) -> dict[str, Any]:
    """What the command line replaces in platform.yaml."""
    claims = {"store": options.store_claim, "workspace": options.workspace_claim}
    changes = {
        "image": options.image or os.environ.get("ELCREC_IMAGE"),
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
    sub.add_argument("--root", type=Path, metavar="DIR", help=f"artifacts of the runs (default {ROOT})")
    sub.add_argument("--store", type=Path, metavar="DIR", help=f"(default {STORE})")


def _add_settings(sub: argparse.ArgumentParser) -> None:
    """What is compiled; the defaults come later, so that an option that is given can be told from one that is not."""
    names = f"{', '.join(PIPELINES)} (default {PIPELINES[0]})"
    sub.add_argument("pipeline", nargs="?", choices=PIPELINES, metavar="PIPELINE", help=names)
    sub.add_argument("--params", type=Path, metavar="FILE", help=f"(default {PARAMS})")
    sub.add_argument("--preset", dest="presets", type=Path, action="append", default=[], metavar="FILE")
    sub.add_argument("--platform", type=Path, metavar="FILE", help=f"(default {PLATFORM})")
    sub.add_argument("--image", help="image of every component (default: ELCREC_IMAGE, else the platform's)")
    sub.add_argument("--accelerators", type=int, metavar="N", help="GPUs that training asks for on a node")
    sub.add_argument("--nodes", type=int, metavar="N", help="nodes that training runs on")
    sub.add_argument("--store-claim", metavar="NAME", help="PersistentVolumeClaim of the store, mounted at /store")
    sub.add_argument("--workspace-claim", metavar="NAME", help="PersistentVolumeClaim of checkpoints")
