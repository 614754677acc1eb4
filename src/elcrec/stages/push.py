"""Push: decide, write the bundle, register it, publish features, and move the alias last.

Every step keeps what an earlier, killed run has already done, so running again is harmless.
"""

import logging
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from elcrec.artifacts import read_json, write_json
from elcrec.config import PushConfig
from elcrec.custody import stage_output, verify
from elcrec.data.dataset import EvaluationSet, SequenceData, load_sequences, require_served_window, user_ids_of
from elcrec.errors import UserError
from elcrec.evaluation.metrics import mean_metrics
from elcrec.evaluation.provenance import is_of_model
from elcrec.evaluation.sampling import asked_users
from elcrec.model.io import CONFIG, WEIGHTS, read_architecture
from elcrec.monitoring.challenge import challenge
from elcrec.ranking.files import FACTS, NEW_ITEMS, RULES, SEARCH
from elcrec.serving.bundle import BundleSource, Manifest, describe_bundle, read_manifest, verify_bundle, write_bundle
from elcrec.serving.catalogue import load_catalogue
from elcrec.serving.champion import rank_with_champion
from elcrec.serving.counterfactual import OnTheLog
from elcrec.serving.gate import Champion, GateDecision, gate_markdown, judge
from elcrec.serving.ports import FeatureStore, FeatureTables, ModelRegistry, RegisteredModel
from elcrec.serving.publishing import bundle_tables, log_tables
from elcrec.serving.training_record import HISTORY, read_training

logger = logging.getLogger(__name__)

_RANKS: dict[str, Callable[[pa.DataType], bool]] = {
    "user_id": lambda kind: pa.types.is_string(kind) or pa.types.is_large_string(kind),
    "target": pa.types.is_integer,
    "rank": pa.types.is_integer,
}
"""Columns of ranks.parquet that the gate needs, and their types."""


def push(
    config: PushConfig,
    model: Path,
    sequences: Path,
    evaluation: Path,
    out: Path,
    *,
    registry: ModelRegistry,
    features: FeatureStore,
    run: Mapping[str, str] | None = None,
    sign: Callable[[Path], None] | None = None,
    salt: Callable[[], str] | None = None,
) -> dict[str, Any]:
    """Judge a model and write gate.json and gate.md; if accepted, write `bundle/` and make it champion or challenger.

    A refusal is a result, not an error; the log's histories are published anyway.

    Args:
        config: the section `push`.
        model: the model folder.
        sequences: the sequences folder.
        evaluation: the evaluation folder.
        out: the folder to write.
        registry: the registry of models.
        features: the feature store.
        run: the run of a pipeline, such as its `id` and `name`, kept in the bundle's manifest and as tags
            `elcrec.run.*` of the version.
        sign: signs a bundle folder; `None` leaves bundles unsigned.
        salt: returns the salt of the users' keys in exposures, for `push.gate.counterfactual`.

    Returns:
        The decision and what was done.

    Raises:
        UserError: an input does not match the others, or a store refuses.
    """
    source = BundleSource(model=model, sequences=sequences, evaluation=evaluation)
    manifest = _describe(config, source, features)
    decision = _decide(config, source, manifest, registry, salt)
    with stage_output(out) as scratch:
        write_json(scratch / "gate.json", decision.document())
        (scratch / "gate.md").write_text(gate_markdown(decision), encoding="utf-8")
        if decision.accepted:
            write_bundle(source, manifest, scratch / "bundle", run=run)
            if sign is not None:
                sign(scratch / "bundle")
    logger.info("push %s: %s", "accepted" if decision.accepted else "refused", decision.reason)
    if decision.accepted:
        asked = config.alias == "challenger" and decision.serving is not None
        released = _release(
            config,
            source,
            out / "bundle",
            manifest,
            registry=registry,
            features=features,
            run=run,
            challenges=asked and not decision.already_champion,
        )
        return _summary(decision) | released
    return _summary(decision) | publish_log(config, sequences, decision, features=features)


def publish_log(
    config: PushConfig, sequences: Path, decision: GateDecision, *, features: FeatureStore
) -> dict[str, Any]:
    """Publish the histories of a log whose model was refused: they are still true, and the champion reads them.

    If no version serves, nobody reads them, so nothing is published.

    Raises:
        UserError: an input cannot be read, or a store refuses.
    """
    if decision.serving is None:
        return {}
    logger.info("publishing histories only: version %s still serves", decision.serving)
    return _publish(config, features, log_tables(sequences))


def decide(
    config: PushConfig,
    model: Path,
    sequences: Path,
    evaluation: Path,
    *,
    registry: ModelRegistry,
    features: FeatureStore,
    salt: Callable[[], str] | None = None,
) -> GateDecision:
    """Judge a model by its evaluation and against the champion; write nothing. `salt` is as in `push`.

    Raises:
        UserError: an input does not match the others, or a store refuses.
    """
    source = BundleSource(model=model, sequences=sequences, evaluation=evaluation)
    return _decide(config, source, _describe(config, source, features), registry, salt)


def _describe(config: PushConfig, source: BundleSource, features: FeatureStore) -> Manifest:
    _verify(source)
    _require_times(config, source.sequences)
    service = config.feature_service
    schema = features.schema(service)
    require_served_window(read_architecture(source.model).encoder.window, source.sequences, where=source.model)
    return describe_bundle(source, name=config.model_name, feature_service=service, feature_schema=schema)


def _verify(source: BundleSource) -> None:
    """Compare the inputs with the checksums that their stages recorded."""
    verify(source.model, CONFIG, WEIGHTS, optional=[HISTORY])
    verify(source.sequences, "split.json", "sequences.parquet", "items.parquet", "histories.parquet")
    written = ("metrics.json", "ranks.parquet", "intents.json", "model_card.md")
    verify(source.evaluation, *written, optional=[RULES, FACTS, NEW_ITEMS, SEARCH])


def _require_times(config: PushConfig, sequences: Path) -> None:
    """Check that the log has real times if the configuration counts days."""
    if config.idle_days and read_json(sequences / "split.json").get("time") != "real":
        what = "push.idle_days counts days; this log has only an order, no real times"
        raise UserError(what, where=sequences, fix="set push.idle_days=0")


def _decide(
    config: PushConfig,
    source: BundleSource,
    manifest: Manifest,
    registry: ModelRegistry,
    salt: Callable[[], str] | None,
) -> GateDecision:
    data = load_sequences(source.sequences)
    table, test = _read_ranks(source, data)
    ranks = np.asarray(table["rank"], np.int32)
    serving = registry.champion(config.model_name)
    measured = _measured(serving, config.model_name, source, test, manifest, registry)
    return judge(
        config.gate,
        _recounted(read_json(source.evaluation / "metrics.json"), table, where=source.evaluation),
        ranks,
        measured,
        digest=manifest.digest,
        serving=serving.version if serving else None,
        rejected=registry.rejected(config.model_name, manifest.digest),
        on_the_log=_on_the_log(config, source, manifest, serving, salt),
    )


def _on_the_log(
    config: PushConfig,
    source: BundleSource,
    manifest: Manifest,
    champion: RegisteredModel | None,
    salt: Callable[[], str] | None,
) -> OnTheLog | None:
    """Make the counterfactual estimate, if the configuration asks for it and another bundle serves."""
    asked = config.gate.counterfactual
    if asked.attributed is None or champion is None or read_manifest(champion.bundle).digest == manifest.digest:
        return None
    assert salt is not None, "a caller that sets this section must pass the salt"
    with TemporaryDirectory() as folder:
        challenger = Path(folder) / "bundle"
        write_bundle(source, manifest, challenger)
        return challenge(asked, champion, challenger, source.sequences, salt=salt())


def _read_ranks(source: BundleSource, data: SequenceData) -> tuple[pa.Table, EvaluationSet]:
    """Return the table of ranks of the challenger and others, N rows, and the test split of these users.

    These are exactly the users with a test target, or the sample of them that `evaluate.users` sets.
    """
    path = source.evaluation / "ranks.parquet"
    try:
        table = pq.read_table(path)
    except (OSError, pa.ArrowException) as error:
        raise UserError(f"not readable ({error})", where=path, fix="run the evaluate stage again") from error
    faulty = [name for name, kind in _RANKS.items() if not _is_full(table, name, kind)]
    if faulty:
        fix = "run the evaluate stage again"
        raise UserError(f"no column {faulty[0]!r} with a value for every user", where=path, fix=fix)
    if not is_of_model(table, source.model):
        raise UserError(f"not the ranks of {source.model}", where=path, fix="run the evaluate stage again")
    test = asked_users(data, "test", max(1, len(table)), source.sequences)
    if not len(test.users):
        raise UserError("no user has a test target", where=path, fix="push needs a split with test users")
    same_users = table["user_id"].cast(pa.string()).equals(user_ids_of(source.sequences, test.users))
    if not same_users or not np.array_equal(table["target"].to_numpy(), test.target_items):
        raise UserError("not the ranks of the test users", where=path, fix="run the evaluate stage again")
    return table, test


def _is_full(table: pa.Table, name: str, kind: Callable[[pa.DataType], bool]) -> bool:
    known = name in table.column_names and kind(table[name].type)
    return known and not table[name].null_count


def _recounted(metrics: Mapping[str, Any], ranks: pa.Table, *, where: Path) -> dict[str, Any]:
    """Return the metrics to judge: those computed from the ranks, and the others as in metrics.json.

    Raises:
        UserError: metrics.json contradicts the ranks.
    """
    columns = {"": "rank"} | {f"{other}_": f"{other}_rank" for other in ("popularity", "baseline")}
    known = {prefix: ranks[name] for prefix, name in columns.items() if name in ranks.column_names}
    found = {
        f"{prefix}{name}": value
        for prefix, column in known.items()
        if not column.null_count
        for name, value in mean_metrics(column.to_numpy()).items()
    }
    for name, value in found.items():
        said = metrics.get(name, value)
        if not _is_number(said) or not np.isclose(said, value, rtol=1e-6, atol=1e-9):
            what = f"{name} is {said}, but ranks.parquet gives {value:.6f}"
            raise UserError(what, where=where / "metrics.json", fix="run the evaluate stage again")
    return {**metrics, **found}


def _measured(
    champion: RegisteredModel | None,
    name: str,
    source: BundleSource,
    test: EvaluationSet,
    manifest: Manifest,
    registry: ModelRegistry,
) -> Champion | None:
    """Measure the champion, or, if it is gone or cannot be read, the newest other version that can be."""
    for registered in _candidates(name, champion, registry):
        try:
            digest = verify_bundle(registered.bundle).digest
            if digest == manifest.digest and registered is not champion:
                continue  # left by a killed push of this same bundle
            ranks = None
            if digest != manifest.digest:
                catalogue = load_catalogue(source.sequences / "items.parquet")
                ranks = rank_with_champion(registered.bundle, catalogue, test)
        except UserError as error:
            logger.warning("version %s cannot be measured: %s", registered.version, error)
            continue
        return Champion(version=registered.version, digest=digest, ranks=ranks)
    return None


def _candidates(name: str, champion: RegisteredModel | None, registry: ModelRegistry) -> Iterator[RegisteredModel]:
    """Yield the champion, if there is one, then the other versions, newest first."""
    if champion is not None:
        yield champion
    for version in registry.versions(name):
        found = registry.version(name, version) if champion is None or version != champion.version else None
        if found is not None:
            yield found


def _release(
    config: PushConfig,
    source: BundleSource,
    bundle: Path,
    manifest: Manifest,
    *,
    registry: ModelRegistry,
    features: FeatureStore,
    run: Mapping[str, str] | None,
    challenges: bool,
) -> dict[str, Any]:
    """Register, publish, and only then move the alias: a reader never meets a version without features.

    For a challenger only histories are published: intents and vectors in the store stay the champion's.
    """
    metrics = {name: value for name, value in read_json(bundle / "metrics.json").items() if _is_number(value)}
    tags = {"sequences_md5": manifest.sequences_md5, "feature_service": manifest.feature_service}
    tags |= {f"elcrec.run.{key}": value for key, value in (run or {}).items()}
    training = read_training(source.model, source.sequences)
    version = registry.register(config.model_name, bundle, metrics, tags, training)
    logger.info("publishing features, which takes minutes for a million users")
    tables = log_tables(source.sequences) if challenges else bundle_tables(source, manifest.digest)
    published = _publish(config, features, tables)
    if registry.rejected(config.model_name, manifest.digest) is not None:
        raise UserError(f"version {version} was rejected while it was pushed", fix="push another model")
    alias = "challenger" if challenges else "champion"
    if challenges:
        registry.set_challenger(config.model_name, version)
    else:
        registry.set_champion(config.model_name, version)
    logger.info("%s version %s is the %s", config.model_name, version, alias)
    return {"version": version, "alias": alias, **published}


def _publish(config: PushConfig, features: FeatureStore, tables: FeatureTables) -> dict[str, Any]:
    published = features.publish(tables, service=config.feature_service, idle_days=config.idle_days)
    for view, rows in published.items():
        logger.info("published %d rows of %s", rows, view)
    return {f"published_{view}": rows for view, rows in published.items()}


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _summary(decision: GateDecision) -> dict[str, Any]:
    champion = decision.champion
    return {
        "accepted": decision.accepted,
        "reason": decision.reason,
        f"challenger_{decision.metric}": decision.challenger,
        "champion_version": champion.version if champion else None,
        f"champion_{decision.metric}": champion.metric if champion else None,
        "digest": decision.digest,
    }
