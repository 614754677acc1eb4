"""Register the model and publish its features."""

from kfp import dsl

from components._image import IMAGE


@dsl.component(base_image=IMAGE, install_kfp_package=False)
def push(
    config: str,
    store: str,
    model: dsl.Input[dsl.Model],
    sequences: dsl.Input[dsl.Dataset],
    evaluation: dsl.Input[dsl.Artifact],
    pushed: dsl.Output[dsl.Artifact],
    metrics: dsl.Output[dsl.Metrics],
    run_name: str = "",
) -> None:
    """Run stage push.

    Args:
        config: JSON of the section `push`.
        store: Folder of the registry and the feature store, if no server is set.
        model: The challenger.
        sequences: Output of sequences.
        evaluation: Output of evaluate.
        pushed: The decision and the bundle.
        metrics: The stage's numbers.
        run_name: Display name of this run.
    """
    from elcrec.process import set_up_process

    set_up_process()

    from functools import partial
    from pathlib import Path

    from components._artifacts import describe, log, run_facts
    from components._sections import read_section
    from elcrec.adapters.store import open_store
    from elcrec.stages.push import push as stage

    section, target, out = read_section("push", config), open_store(Path(store)), Path(pushed.path)
    inputs = Path(model.path), Path(sequences.path), Path(evaluation.path)
    stores = partial(stage, registry=target.registry, features=target.features)
    release = partial(stores, sign=target.signer, salt=lambda: target.user_salt)
    with target.pushing():
        done = release(section, *inputs, out, run=run_facts(run_name))
    log(metrics, done)
    facts = {"decision": "accepted" if done["accepted"] else "refused", "reason": done["reason"]}
    facts |= {"model": section.model_name, "version": done["version"]} if done["accepted"] else {}
    describe(pushed, file="gate.json", config=config, source=sequences, **facts)
