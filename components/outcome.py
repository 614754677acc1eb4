"""Report how a run ended, whether it succeeded or not."""

from kfp import dsl

from components._image import IMAGE


@dsl.component(base_image=IMAGE, install_kfp_package=False)
def outcome(pipeline: str, status: dsl.PipelineTaskFinalStatus, summary: dsl.Output[dsl.Markdown]) -> None:
    """Write the outcome of the run down, and tell the address in ELCREC_WEBHOOK where there is one.

    Args:
        pipeline: Name of the pipeline.
        status: How the steps ended, as KFP tells an exit task.
        summary: The outcome in words.
    """
    from elcrec.process import set_up_process

    set_up_process()

    import json
    import os
    from pathlib import Path

    from components._outcome import describe_run, notify
    from components._support import describe

    text = describe_run(pipeline, status)
    Path(summary.path).write_text(text, encoding="utf-8")
    describe(summary, config=json.dumps({"pipeline": pipeline}))
    if os.environ.get("ELCREC_WEBHOOK"):
        notify(os.environ["ELCREC_WEBHOOK"], text)
