"""Decide whether the model may be pushed; the condition before push."""

from kfp import dsl

from components._image import IMAGE


@dsl.component(base_image=IMAGE, install_kfp_package=False)
def gate(
    config: str,
    store: str,
    model: dsl.Input[dsl.Model],
    sequences: dsl.Input[dsl.Dataset],
    evaluation: dsl.Input[dsl.Artifact],
    reason: dsl.Output[dsl.Markdown],
) -> bool:
    """Judge the challenger by its floors and against the champion on the same split.

    Args:
        config: JSON of the section `push`.
        store: Folder of the registry and the feature store, where no server is set.
        model: The challenger.
        sequences: What sequences wrote.
        evaluation: What evaluate wrote.
        reason: The decision with its conditions and the comparison with the champion.

    Returns:
        Whether the model may be pushed.
    """
    from elcrec.process import set_up_process

    set_up_process()

    from pathlib import Path

    from components._support import describe, read_section
    from elcrec.adapters.store import open_store
    from elcrec.serving.gate import gate_markdown
    from elcrec.stages.push import decide

    inputs = Path(model.path), Path(sequences.path), Path(evaluation.path)
    target = open_store(Path(store))
    decision = decide(read_section("push", config), *inputs, registry=target.registry, features=target.features)
    Path(reason.path).write_text(gate_markdown(decision), encoding="utf-8")
    facts = {"decision": "accepted" if decision.accepted else "refused", "reason": decision.reason}
    describe(reason, config=config, source=sequences, **facts)
    return bool(decision.accepted)
