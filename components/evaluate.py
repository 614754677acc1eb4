"""Rank the test targets and write the report."""

from typing import Optional

from kfp import dsl

from components._image import IMAGE


@dsl.component(base_image=IMAGE, install_kfp_package=False)
def evaluate(
    config: str,
    model: dsl.Input[dsl.Model],
    sequences: dsl.Input[dsl.Dataset],
    raw: dsl.Input[dsl.Dataset],
    evaluation: dsl.Output[dsl.Artifact],
    report: dsl.Output[dsl.HTML],
    intents: dsl.Output[dsl.HTML],
    card: dsl.Output[dsl.Markdown],
    metrics: dsl.Output[dsl.Metrics],
    baseline: Optional[dsl.Input[dsl.Model]] = None,  # noqa: UP045 - kfp knows only this form
) -> None:
    """Run stage evaluate.

    Args:
        config: JSON of the section `evaluate`.
        model: The challenger.
        sequences: Output of sequences.
        raw: Output of fetch; that of the sample has the planted truth.
        evaluation: Metrics, segments, ranks and intents.
        report: The evaluation page.
        intents: The page of intents; for a model without intents, it says so.
        card: The model card.
        metrics: The stage's numbers.
        baseline: The model without intents, for comparison; optional.
    """
    from elcrec.process import set_up_process

    set_up_process()

    from pathlib import Path

    from components._artifacts import describe, log, publish, run_facts
    from components._sections import read_section
    from elcrec.stages.evaluate import evaluate as stage

    out = Path(evaluation.path)
    inputs = {"baseline": Path(baseline.path) if baseline else None, "truth": Path(raw.path)}
    section = read_section("evaluate", config)
    log(metrics, stage(section, Path(model.path), Path(sequences.path), out, run=run_facts(), **inputs))
    publish(out / "report.html", report)
    publish(out / "intents.html", intents)
    publish(out / "model_card.md", card)
    describe(evaluation, report, intents, card, file="metrics.json", config=config, source=sequences)
