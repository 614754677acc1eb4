"""`elcrec-pipeline run`: a pipeline's components on this machine, without a cluster."""

import argparse
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from elcrec.errors import UserError
from pipelines.options import arguments_of, refuse
from pipelines.settings import add_param, add_settings, build_pipeline, compile_to, platform_of

Options = argparse.Namespace
ROOT, STORE = Path("local_outputs"), Path("artifacts/store")
_EARLIER = "--local"
"""`submit` with this was the spelling of `run`."""


def add_command(commands: Any) -> None:
    """Add `run` to the subparsers of `elcrec-pipeline`."""
    text = "run a pipeline's components on this machine, without a cluster"
    sub = commands.add_parser("run", help=text, description=text)
    sub.set_defaults(command=_run)
    add_settings(sub)
    add_param(sub)
    sub.add_argument("--docker", action="store_true", help="each component in a container of --image")
    sub.add_argument("--root", type=Path, default=ROOT, metavar="DIR", help=f"artifacts of the runs (default {ROOT})")
    sub.add_argument("--store", type=Path, default=STORE, metavar="DIR", help=f"(default {STORE})")


def refuse_earlier_spelling(arguments: Sequence[str]) -> None:
    """Refuse `submit --local`, in whose place `run` stands.

    Raises:
        UserError: it is given; the fix is the command to type.
    """
    if arguments[:1] == ["submit"] and _EARLIER in arguments:
        rest = [argument for argument in arguments[1:] if argument not in {_EARLIER, "--wait"}]  # `run` always waits
        fix = f"type: {shlex.join(['elcrec-pipeline', 'run', *rest])}"
        raise UserError("submit --local has become a command of its own, run", fix=fix)


def _run(options: Options) -> int:
    from pipelines.local import NO_IMAGE, RECORDED, docker_runner, recording, run, subprocess_runner
    from pipelines.progress import teller
    from pipelines.tasks import Places

    if not options.docker:
        refuse(options, ["image"], because="components run in an image only with --docker")
        options.image = NO_IMAGE
    root, store = options.root, options.store.absolute()
    workspace, say = (root / "workspace").absolute(), teller()
    pipeline = build_pipeline(options, Places(store=str(store), workspace=str(workspace)))
    platform = platform_of(options)
    if platform.nodes > 1:
        raise UserError(
            "a run on this machine trains in one process", where=f"nodes: {platform.nodes}", fix="give --nodes 1"
        )
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
        compile_to(path, pipeline)
        return load_package(path).resolve(arguments)
