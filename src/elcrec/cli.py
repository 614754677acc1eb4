"""`elcrec <stage>`: argument parsing only. Every command imports what it needs when it is called."""

import argparse
import logging
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from elcrec import __version__
from elcrec.artifacts import FORGOTTEN_FILE
from elcrec.errors import UserError
from elcrec.faults import explain
from elcrec.process import ended_by_sigterm, set_up_process
from elcrec.state_commands import add_events, add_forget, events, forget

if TYPE_CHECKING:  # so that `elcrec --help` does not load the configuration
    from elcrec.config import Config

Options = argparse.Namespace

ARTIFACTS = Path("artifacts")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; return its exit status.

    It is 0 on success, `push.refused_status` if the gate refused a model, `monitor.retrain_status` if retraining is
    requested, 2 after a user's mistake, 130 after Ctrl-C, 143 after SIGTERM.
    """
    set_up_process()
    options = _parser().parse_args(arguments)
    logging.basicConfig(format="%(message)s", stream=sys.stderr)
    logging.getLogger("elcrec").setLevel(logging.INFO)
    command: Callable[[Options], int | None] = options.command
    try:
        with ended_by_sigterm():
            status = command(options)
            sys.stdout.flush()
            return status or 0
    except UserError as error:
        return _say(error)
    except BrokenPipeError:
        # The reader of the output, such as `head`, has closed it.
        _abandon_output()
        return 1
    except KeyboardInterrupt:
        print("elcrec: interrupted; the same command resumes or starts again", file=sys.stderr)
        return 130
    except Exception as error:
        explained = explain(error)
        if explained is None:
            raise
        _abandon_output()
        return _say(explained)


def _abandon_output() -> None:
    """Prevent flushing standard output at exit, which would fail again."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _say(error: UserError) -> int:
    print(f"elcrec: error: {error}", file=sys.stderr)
    if error.details:
        print(error.details, file=sys.stderr)
    return 2


def _fetch(options: Options) -> None:
    from elcrec.adapters.objects import local_copy
    from elcrec.stages.fetch import fetch

    with local_copy(_config(options).fetch) as (section, provenance):
        _show(fetch(section, options.out, mirror=_mirror(), provenance=provenance))


def _validate(options: Options) -> None:
    from elcrec.adapters.engine import open_engine
    from elcrec.stages.validate import validate

    config = _config(options)
    memory = {"accepted": options.accepted, "forgotten": options.forgotten}
    given = {"engine": open_engine(config.engine), **memory, "accept_drift": options.accept_drift}
    _show(validate(config.validate, options.raw, options.out, **given))


def _sequences(options: Options) -> None:
    from elcrec.adapters.engine import open_engine
    from elcrec.stages.sequences import build_sequences

    config = _config(options)
    _show(build_sequences(config.sequences, options.interactions, options.out, engine=open_engine(config.engine)))


def _train(options: Options) -> None:
    from elcrec.stages.train import train

    if options.objective is not None:
        options.overrides = [*options.overrides, f"train.objective={options.objective}"]
    places = {"checkpoint": options.checkpoint, "warm_start": options.warm_start}
    _show(train(_config(options).train, options.sequences, options.out, **places))


def _import_weights(options: Options) -> None:
    from elcrec.adapters.published_weights import read_published
    from elcrec.stages.import_weights import import_weights

    inputs = (options.checkpoint, options.sequences, options.out)
    settings = {"num_heads": options.num_heads, "drop_absent_items": options.drop_absent_items}
    _show(import_weights(*inputs, read=read_published, **settings))


def _evaluate(options: Options) -> None:
    from elcrec.stages.evaluate import evaluate

    config = _config(options).evaluate
    baseline = _optional(options.baseline, usual=ARTIFACTS / "baseline")
    truth = _optional(options.truth, usual=ARTIFACTS / "raw")
    _show(evaluate(config, options.model, options.sequences, options.out, baseline=baseline, truth=truth))


def _optional(given: str | None, *, usual: Path) -> Path | None:
    """Return the folder of an option that may be `none`, without the option the usual one if it is there."""
    if given is None:
        return usual if usual.is_dir() else None
    return None if given == "none" else Path(given)


def _push(options: Options) -> int:
    from elcrec.adapters.store import open_store
    from elcrec.stages.push import push

    store = open_store(options.store)
    inputs, config = (options.model, options.sequences, options.evaluation), _config(options).push
    with store.pushing():
        release = partial(push, registry=store.registry, features=store.features, sign=store.signer)
        pushed = release(config, *inputs, options.out, salt=lambda: store.user_salt)
    _show(pushed)
    return 0 if pushed["accepted"] else config.refused_status


def _rollback(options: Options) -> None:
    from elcrec.adapters.store import open_store
    from elcrec.stages.rollback import rollback

    store, name = open_store(options.store), _config(options).push.model_name
    _show(rollback(name, options.version, registry=store.quick_registry, features=store.quick_check))


def _run(options: Options) -> int:
    from elcrec.run import run

    config = _config(options)
    lines = run(config, options.workdir, mirror=_mirror(), accept_drift=options.accept_drift)
    while True:
        try:
            print(next(lines))
        except StopIteration as end:
            return 0 if end.value else config.push.refused_status


def _recommend(options: Options) -> None:
    from elcrec.adapters.store import open_store
    from elcrec.stages.recommend import recommend

    store = open_store(options.store)
    name = _config(options).push.model_name
    for line in recommend(name, options.user, options.k, registry=store.registry, features=store.features):
        print(line)


def _serve(options: Options) -> None:
    from elcrec.adapters.store import open_store
    from elcrec.adapters.tracing import open_traces
    from elcrec.serving.access import read_keys
    from elcrec.serving.server import serve
    from elcrec.stages.recommend import first_users

    asked = {f"serve.{name}": getattr(options, name) for name in ("host", "port")}
    options.overrides = [*options.overrides, *(f"{key}={value}" for key, value in asked.items() if value is not None)]
    config, store = _config(options), open_store(options.store)
    users = first_users(store.histories) if config.serve.demo else []
    name = config.push.model_name
    salt = store.user_salt if config.serve.exposures.wanted else ""
    check = None
    if config.serve.verify_key is not None:
        from elcrec.adapters.signatures import require_signature

        check = require_signature(Path(config.serve.verify_key))
    registry, features = store.quick_registry, store.features
    serve(
        config.serve,
        name,
        registry=registry,
        features=features,
        demo_users=users,
        api_keys=read_keys(os.environ),
        salt=salt,
        check=check,
        traces=open_traces(os.environ),
    )


def _exposures(options: Options) -> None:
    from elcrec.adapters.engine import open_engine
    from elcrec.adapters.store import open_store
    from elcrec.stages.exposures import join_exposures

    config, store = _config(options), open_store(options.store)
    inputs = {"salt": store.user_salt, "engine": open_engine(config.engine), "export": options.events}
    log = store.features.event_log
    dislikes = config.sequences.kinds.dislikes
    _show(join_exposures(config.exposures, options.exposures, options.out, log=log, dislikes=dislikes, **inputs))


def _monitor(options: Options) -> int:
    from datetime import UTC, datetime

    from elcrec.adapters.engine import open_engine
    from elcrec.adapters.store import open_store
    from elcrec.stages.monitor import monitor

    config, bundle = _config(options), None
    if options.store is not None:
        champion = open_store(options.store).registry.champion(config.push.model_name)
        bundle = None if champion is None else champion.bundle
    inputs = {"engine": open_engine(config.engine), "earlier": options.earlier, "bundle": bundle}
    found = monitor(config.monitor, options.attributed, options.out, now=datetime.now(UTC), **inputs)
    _show(found)
    return config.monitor.retrain_status if found["retrain"] else 0


def _promote(options: Options) -> None:
    from datetime import UTC, datetime

    from elcrec.adapters.engine import open_engine
    from elcrec.adapters.store import open_store
    from elcrec.stages.promote import promote

    config, store = _config(options), open_store(options.store)
    with store.pushing():
        decided = promote(
            options.attributed,
            registry=store.quick_registry,
            features=store.quick_check,
            config=config,
            out=options.out,
            engine=open_engine(config.engine),
            now=datetime.now(UTC),
            dry_run=options.dry_run,
        )
    _show(decided)


def _recommend_all(options: Options) -> None:
    from elcrec.adapters.store import open_store
    from elcrec.data.parts import Part
    from elcrec.stages.recommend import bundle_of, read_users
    from elcrec.stages.recommend_all import recommend_all

    store = open_store(options.store)
    bundle = options.bundle
    if bundle is None:
        bundle = bundle_of(_config(options).push.model_name, options.model_version, store.registry)
    wanted = None if options.users is None else read_users(options.users)
    histories, part = options.histories or store.histories, Part.parse(options.part)
    _show(recommend_all(bundle, histories, options.out, options.k, wanted, part))


def _config_command(options: Options) -> None:
    import yaml

    from elcrec.config import to_dict

    print(yaml.safe_dump(to_dict(_config(options)), sort_keys=False), end="")


def _config(options: Options) -> "Config":
    from elcrec.config import load_config
    from elcrec.shipped import own_or_shipped

    presets = [own_or_shipped(preset) for preset in options.presets]
    return load_config(own_or_shipped(options.params), presets=presets, overrides=options.overrides)


def _mirror() -> Path | None:
    folder = os.environ.get("ELCREC_MIRROR")
    return Path(folder) if folder else None


def _show(metrics: Mapping[str, object]) -> None:
    for name, value in metrics.items():
        print(f"{name:<28} {value:.4f}" if isinstance(value, float) else f"{name:<28} {value}")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="elcrec", description="Intent-aware sequential recommendation, from a raw log to top-k."
    )
    parser.add_argument("--version", action="version", version=f"elcrec {__version__}")
    commands = parser.add_subparsers(title="commands", required=True, metavar="COMMAND")

    def add(name: str, command: Callable[[Options], int | None], text: str, **paths: Path) -> argparse.ArgumentParser:
        sub = commands.add_parser(name, help=text, description=text)
        sub.set_defaults(command=command)
        _add_configuration(sub)
        for option, default in paths.items():
            sub.add_argument(f"--{option}", type=Path, default=default, metavar="DIR", help=f"(default {default})")
        return sub

    a = ARTIFACTS
    add("fetch", _fetch, "Get the raw log, or make the sample log.", out=a / "raw")
    checked = add(
        "validate",
        _validate,
        "Check the raw log; quarantine faulty rows.",
        raw=a / "raw",
        out=a / "validated",
        accepted=a / "accepted",
        forgotten=a / "store" / FORGOTTEN_FILE,
    )
    add(
        "sequences",
        _sequences,
        "Build sequences, the item index and the split.",
        interactions=a / "validated",
        out=a / "sequences",
    )
    train = add(
        "train",
        _train,
        "Train a model; resumes from its checkpoint.",
        sequences=a / "sequences",
        out=a / "model",
        checkpoint=a / "checkpoints" / "model",
    )
    train.add_argument("--objective", help="overrides train.objective, for example for the baseline")
    train.add_argument("--warm-start", type=Path, metavar="BUNDLE", help="start from the weights of a pushed model")
    evaluate = add(
        "evaluate",
        _evaluate,
        "Rank the test targets and write the report.",
        model=a / "model",
        sequences=a / "sequences",
        out=a / "evaluation",
    )
    text = f"a model to compare with, user by user, or none (default {a / 'baseline'} if it is there)"
    evaluate.add_argument("--baseline", metavar="DIR", help=text)
    text = f"the raw folder, for the intents planted in the sample, or none (default {a / 'raw'} if it is there)"
    evaluate.add_argument("--truth", metavar="DIR", help=text)
    add(
        "push",
        _push,
        "Judge the model; if accepted, register it and publish its features.",
        model=a / "model",
        sequences=a / "sequences",
        evaluation=a / "evaluation",
        store=a / "store",
        out=a / "push",
    )
    text = "Make an earlier version the champion, and reject the present one."
    back = add("rollback", _rollback, text, store=a / "store")
    back.add_argument("version", nargs="?", metavar="VERSION", help="version to serve (default: the previous one)")
    whole = add("run", _run, "Run all stages and recommend for one user.", workdir=a)
    text = "accept a log that drifted from the last accepted one; the report shows REASON (who accepts it, and why)"
    for command in (checked, whole):
        command.add_argument("--accept-drift", default="", metavar="REASON", help=text)
    recommend = add(
        "recommend", _recommend, "Recommend items to one user, with their history from Feast.", store=a / "store"
    )
    recommend.add_argument("--user", required=True, help="the user's raw id")
    recommend.add_argument("--k", type=int, default=10, help="how many items (default 10)")
    text = "Add live events to users' histories, or work with the event log."
    add_events(add("events", lambda options: _show(events(options, _config)), text, store=a / "store"))
    text = "Erase a user from the store and from work folders; logs that are read later are read without them."
    add_forget(add("forget", lambda options: _show(forget(options, _config(options))), text, store=a / "store"))
    serve = add("serve", _serve, "Serve the champion over HTTP; follow the registry.", store=a / "store")
    serve.add_argument("--host", help="overrides serve.host")
    serve.add_argument("--port", type=int, help="overrides serve.port")
    _add_loop(add)
    text = "Recommend items to all users of a file of histories, into one Parquet file."
    everybody = add("recommend-all", _recommend_all, text, store=a / "store")
    everybody.add_argument("--bundle", type=Path, metavar="DIR", help="a bundle folder, instead of the store's model")
    everybody.add_argument("--model-version", default="champion", metavar="VERSION", help="(default champion)")
    everybody.add_argument("--users", type=Path, metavar="FILE", help="raw ids, one per line (default: all users)")
    everybody.add_argument(
        "--histories",
        type=Path,
        metavar="FILE",
        help="file with user_id and item_ids (default: the histories of the store's last push)",
    )
    everybody.add_argument("--out", type=Path, required=True, metavar="FILE", help="the Parquet file to write")
    everybody.add_argument("--k", type=int, default=20, help="how many items (default 20)")
    everybody.add_argument("--part", default="1/1", metavar="I/N", help="one of N parts of the users (default 1/1)")
    text = "Turn a checkpoint of the published ELCRec or ICLRec code into a model folder."
    _add_import(commands.add_parser("import-weights", help=text, description=text))
    add("config", _config_command, "Print the whole configuration that the other commands would use.")
    return parser


def _add_loop(add: Callable[..., argparse.ArgumentParser]) -> None:
    """Add the commands that analyse answers: exposures, monitor and promote."""
    a = ARTIFACTS
    text = "Join the servers' exposures with the events that followed, into one table."
    joined = add("exposures", _exposures, text, store=a / "store", exposures=a / "exposures", out=a / "attributed")
    joined.add_argument("--events", type=Path, metavar="FILE", help="an export, for events that the log no longer has")
    text = "Judge what is served, day by day, and say whether to retrain."
    judged = add("monitor", _monitor, text, attributed=a / "attributed", out=a / "monitor")
    text = "the store of the champion, to judge its age and intents too"
    judged.add_argument("--store", type=Path, metavar="DIR", help=text)
    text = "output of an earlier run (default: --out)"
    judged.add_argument("--earlier", type=Path, metavar="DIR", help=text)
    text = "Decide between challenger and champion by the behaviour of their users; move the alias."
    places = {"attributed": a / "attributed", "store": a / "store", "out": a / "promotion"}
    add("promote", _promote, text, **places).add_argument(
        "--dry-run", action="store_true", help="decide and write, but leave the registry as it is"
    )


def _add_import(sub: argparse.ArgumentParser) -> None:
    sub.set_defaults(command=_import_weights)
    sub.add_argument(
        "checkpoint", type=Path, metavar="FILE", help="checkpoint of the published code, such as a .pt file"
    )
    sub.add_argument(
        "--sequences", type=Path, required=True, metavar="DIR", help="sequences of the log that it was trained on"
    )
    sub.add_argument("--out", type=Path, required=True, metavar="DIR", help="the model folder to write")
    sub.add_argument("--num-heads", type=int, default=2, metavar="N", help="attention heads (default 2, as published)")
    sub.add_argument("--drop-absent-items", action="store_true", help="leave out items that the sequences lack")


def _add_configuration(sub: argparse.ArgumentParser) -> None:
    sub.add_argument("--params", type=Path, default=Path("params.yaml"), metavar="FILE", help="(default params.yaml)")
    sub.add_argument(
        "--preset",
        dest="presets",
        type=Path,
        action="append",
        default=[],
        metavar="FILE",
        help="file of parameters that override those of --params; may be repeated",
    )
    sub.add_argument(
        "--set",
        dest="overrides",
        action="append",
        default=[],
        metavar="SECTION.KEY=VALUE",
        help="set one parameter; may be repeated",
    )
