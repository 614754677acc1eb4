"""Check the raw log and quarantine faulty rows."""

from typing import NamedTuple

from kfp import dsl

from components._image import IMAGE


@dsl.component(base_image=IMAGE, install_kfp_package=False)
def validate(
    config: str,
    engine: str,
    spark: str,
    store: str,
    accept_drift: str,
    raw: dsl.Input[dsl.Dataset],
    validated: dsl.Output[dsl.Dataset],
    report: dsl.Output[dsl.HTML],
    metrics: dsl.Output[dsl.Metrics],
) -> NamedTuple("Verdict", [("accepted", bool), ("reason", str)]):  # type: ignore[valid-type] # kfp reads output names
    """Run stage validate.

    A refused log does not fail this step, because KFP keeps no output of a failed step: component require_valid fails
    instead. A log that cannot be read at all has no page, and fails here.

    Args:
        config: JSON of the section `validate`.
        engine: JSON of the section `engine`.
        spark: JSON of the SparkApplication for an engine of kind spark (elcrec/adapters/spark_cluster.py); empty runs
            Spark in this pod, or on its master.
        store: Folder that outlives runs, with the profile of the last accepted log and the list of forgotten users.
        accept_drift: Who accepts a log that drifted from the last accepted one, and why; empty refuses such a log.
        raw: Output of fetch.
        validated: Interactions, quarantine and validation.json; for a refused log without the interactions.
        report: The validation page.
        metrics: The stage's numbers.

    Returns:
        Whether the log may be used, and which checks failed.
    """
    from elcrec.process import set_up_process

    set_up_process()

    import logging
    from pathlib import Path

    from components._artifacts import describe, log, publish
    from components._execution import engine_on
    from components._sections import read_section
    from elcrec.artifacts import FORGOTTEN_FILE
    from elcrec.stages.validate import LogRefusedError
    from elcrec.stages.validate import validate as stage

    out, file, reason = Path(validated.path), "interactions.parquet", ""
    section, asked = read_section("validate", config), read_section("engine", engine)
    try:
        with engine_on(spark, asked, Path(raw.path)) as (opened, given):
            numbers = stage(
                section,
                given,
                out,
                engine=opened,
                accepted=Path(store, "accepted"),
                forgotten=Path(store, FORGOTTEN_FILE),
                accept_drift=accept_drift,
            )
    except LogRefusedError as refused:
        logging.getLogger("elcrec").warning("%s\n%s", refused.reason, refused.details)
        refused.evidence.rename(out)
        file, numbers, reason = "validation.json", refused.metrics, refused.reason
    log(metrics, numbers)
    publish(out / "validation.html", report)
    describe(validated, report, file=file, config=config, source=raw)
    return not reason, reason
