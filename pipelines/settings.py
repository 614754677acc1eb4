"""What is compiled: the options that say so, and the pipeline that they give."""

import argparse
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from elcrec.config import load_config
from pipelines.platform import Platform, load_platform

if TYPE_CHECKING:  # importing kfp takes two seconds, which --help should not
    from pipelines.tasks import Places

Options = argparse.Namespace
PIPELINES = ("training", "retraining", "sweep", "recommendation", "monitoring")
PARAMS, PLATFORM = Path("params.yaml"), Path("pipelines/platform.yaml")


def add_settings(sub: argparse.ArgumentParser) -> None:
    """Add what every pipeline is built from.

    The defaults come later, so that an option that is given can be told from one that is not.
    """
    names = f"{', '.join(PIPELINES)} (default {PIPELINES[0]})"
    sub.add_argument("pipeline", nargs="?", choices=PIPELINES, metavar="PIPELINE", help=names)
    sub.add_argument("--params", type=Path, metavar="FILE", help=f"(default {PARAMS})")
    sub.add_argument("--preset", dest="presets", type=Path, action="append", default=[], metavar="FILE")
    sub.add_argument("--platform", type=Path, metavar="FILE", help=f"(default {PLATFORM})")
    sub.add_argument("--image", help="image of every component (default: ELCREC_IMAGE, else the platform's)")
    sub.add_argument("--nodes", type=int, metavar="N", help="nodes that training runs on")


def add_cluster_settings(sub: argparse.ArgumentParser) -> None:
    """Add what only a cluster has of it."""
    sub.add_argument("--accelerators", type=int, metavar="N", help="GPUs that training asks for on a node")
    sub.add_argument("--store-claim", metavar="NAME", help="PersistentVolumeClaim of the store, mounted at /store")
    sub.add_argument("--workspace-claim", metavar="NAME", help="PersistentVolumeClaim of checkpoints")


def add_param(sub: argparse.ArgumentParser) -> None:
    """Add the parameters of a run."""
    sub.add_argument(
        "--param",
        dest="arguments",
        type=_argument,
        action="append",
        default=[],
        metavar="NAME=VALUE",
        help="a parameter of the run; may be repeated",
    )


def build_pipeline(options: Options, places: "Places | None" = None) -> Any:
    """Return the pipeline of these options; `places` stand in for those of the platform."""
    from pipelines.monitoring import monitoring
    from pipelines.recommendation import recommendation
    from pipelines.tasks import places_on
    from pipelines.training import retraining, sweep, training

    builders = dict(zip(PIPELINES, (training, retraining, sweep, recommendation, monitoring), strict=True))
    config = load_config(options.params or PARAMS, presets=options.presets)
    platform = platform_of(options)
    return builders[options.pipeline or PIPELINES[0]](config, platform, places or places_on(platform))


def compile_to(path: Path, pipeline: Any) -> None:
    """Write the package of a pipeline."""
    from kfp import compiler

    compiler.Compiler().compile(pipeline, str(path))


def platform_of(options: Options) -> Platform:
    """Return platform.yaml with what the command line replaces in it."""
    return load_platform(options.platform or PLATFORM, _platform_changes(options))


def _platform_changes(options: Options) -> dict[str, Any]:
    given = {name: getattr(options, name, None) for name in ("store_claim", "workspace_claim", "accelerators")}
    claims = {"store": given["store_claim"], "workspace": given["workspace_claim"]}
    changes = {
        "image": options.image or os.environ.get("ELCREC_IMAGE"),
        "nodes": options.nodes,
        "claims": {name: claim for name, claim in claims.items() if claim is not None},
        "accelerator": {} if given["accelerators"] is None else {"count": given["accelerators"]},
    }
    return {name: value for name, value in changes.items() if value is not None}


def _argument(text: str) -> tuple[str, str]:
    name, sign, value = text.partition("=")
    if not sign:
        raise argparse.ArgumentTypeError(f"{text!r} is not NAME=VALUE")
    return name, value
