"""Report the outcome of a run, whether it succeeded or not."""

from kfp import dsl

from components._image import IMAGE


@dsl.component(base_image=IMAGE, install_kfp_package=False)
def outcome(
    pipeline: str, status: dsl.PipelineTaskFinalStatus, summary: dsl.Output[dsl.Markdown], run_name: str = ""
) -> None:
    """Write the outcome of the run, and send it to the address in ELCREC_WEBHOOK if there is one.

    Args:
        pipeline: Name of the pipeline.
        status: KFP's state of the steps, which is not reliable; the results that the steps recorded decide.
        summary: The outcome as text.
        run_name: Display name of this run.
    """
    from elcrec.process import set_up_process

    set_up_process()

    import json
    import os
    from pathlib import Path

    from components._artifacts import describe, run_facts
    from components._outcome import conclude, notify
    from components._results import forget_old_runs, read_results, run_folder

    folder, facts = run_folder(os.environ), run_facts(run_name)
    facts |= {"pipeline": pipeline, "run": facts.pop("id", status.pipeline_job_resource_name)}
    ended = conclude(read_results(folder) if folder else [], status.state, **facts)
    Path(summary.path).write_text(ended.text, encoding="utf-8")
    describe(summary, config=json.dumps({"pipeline": pipeline}), outcome=ended.outcome)
    if os.environ.get("ELCREC_WEBHOOK"):
        notify(os.environ["ELCREC_WEBHOOK"], ended)
    if folder:
        forget_old_runs(folder)
