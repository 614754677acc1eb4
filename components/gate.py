"""Decide whether the model may be pushed: the condition before push. If it is refused, publish only the log."""

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

    Histories are valid even if the model is not accepted: if it is refused, they are published to the feature store
    here, and the champion ranks with them. If it is accepted, push publishes them with the model.

    Args:
        config: JSON of the section `push`.
        store: Folder of the registry and the feature store, if no server is set.
        model: The challenger.
        sequences: Output of sequences.
        evaluation: Output of evaluate.
        reason: The decision with its conditions and the comparison with the champion.

    Returns:
        Whether the model may be pushed.
    """
    from elcrec.process import set_up_process

    set_up_process()

    from functools import partial
    from pathlib import Path

    from components._artifacts import describe
    from components._sections import read_section
    from elcrec.adapters.store import open_store
    from elcrec.serving.gate import gate_markdown
    from elcrec.stages.push import decide, publish_log

    section, target = read_section("push", config), open_store(Path(store))
    inputs = Path(model.path), Path(sequences.path), Path(evaluation.path)
    judge = partial(decide, registry=target.registry, features=target.features)
    decision = judge(section, *inputs, salt=lambda: target.user_salt)
    if not decision.accepted:
        publish_log(section, inputs[1], decision, features=target.features)
    Path(reason.path).write_text(gate_markdown(decision), encoding="utf-8")
    facts = {"decision": "accepted" if decision.accepted else "refused", "reason": decision.reason}
    describe(reason, config=config, source=sequences, **facts)
    return bool(decision.accepted)
