"""Train a model; the baseline is the same component with another section."""

from kfp import dsl

from components._image import IMAGE


@dsl.component(base_image=IMAGE, install_kfp_package=False)
def train(
    config: str,
    store: str,
    workspace: str,
    warm_start: str,
    cluster: str,
    sequences: dsl.Input[dsl.Dataset],
    model: dsl.Output[dsl.Model],
    curves: dsl.Output[dsl.HTML],
    metrics: dsl.Output[dsl.Metrics],
    processes: int = 1,
) -> None:
    """Run stage train.

    Args:
        config: JSON of the section `train`.
        store: Folder of the registry, if no server is set.
        workspace: Folder that outlives the pod; a retry of the step resumes from its checkpoint there. Empty keeps the
            checkpoint in the pod.
        warm_start: The champion from whose weights training starts, as component champion returns it; may be empty.
        cluster: JSON of the nodes that train instead of this pod (elcrec/adapters/train_nodes.py); empty trains in this
            pod.
        sequences: Output of sequences.
        model: Weights, configuration and the history of the epochs.
        curves: The training page.
        metrics: The stage's numbers.
        processes: Number of processes that train in this pod, one per accelerator.
    """
    from elcrec.process import set_up_process

    set_up_process()

    from pathlib import Path

    from components._artifacts import describe, log, publish
    from components._champion import find_champion
    from components._execution import checkpoint_folder, stage_on
    from components._sections import read_section
    from components._sweep import log_settings
    from elcrec.adapters.store import open_store

    section, rows, out = read_section("train", config), Path(sequences.path), Path(model.path)
    log_settings(section)
    bundle = find_champion(open_store(Path(store)).registry, warm_start) if warm_start else None
    with checkpoint_folder(workspace, config, rows, warm_start) as checkpoint:
        log(metrics, stage_on(cluster, processes)(section, rows, out, checkpoint=checkpoint, warm_start=bundle))
    publish(Path(model.path, "training.html"), curves)
    describe(model, curves, file="model.safetensors", config=config, source=sequences, warm_start=warm_start)
