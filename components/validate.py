"""Check the raw log and quarantine faulty rows."""

from kfp import dsl

from components._image import IMAGE


@dsl.component(base_image=IMAGE, install_kfp_package=False)
def validate(
    config: str,
    store: str,
    raw: dsl.Input[dsl.Dataset],
    validated: dsl.Output[dsl.Dataset],
    report: dsl.Output[dsl.HTML],
    metrics: dsl.Output[dsl.Metrics],
) -> None:
    """Run stage validate.

    Args:
        config: JSON of the section `validate`.
        store: Folder that outlives runs; holds the profile of the last accepted log.
        raw: What fetch wrote.
        validated: Interactions, quarantine, validation.json.
        report: The validation page.
        metrics: The stage's numbers.
    """
    from pathlib import Path

    from components._support import describe, log, publish, read_section
    from elcrec.stages.validate import validate as stage

    out = Path(validated.path)
    section = read_section("validate", config)
    log(metrics, stage(section, Path(raw.path), out, accepted=Path(store, "accepted")))
    publish(out / "validation.html", report)
    describe(validated, report, metrics, file="interactions.parquet", config=config, source=raw)
