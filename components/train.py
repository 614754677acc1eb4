"""Train a model; the baseline is the same component with another section."""

from kfp import dsl

from components._image import IMAGE


@dsl.component(base_image=IMAGE, install_kfp_package=False)
def train(
    config: str,
    sequences: dsl.Input[dsl.Dataset],
    model: dsl.Output[dsl.Model],
    curves: dsl.Output[dsl.HTML],
    metrics: dsl.Output[dsl.Metrics],
) -> None:
    """Run stage train.

    Args:
        config: JSON of the section `train`.
        sequences: What sequences wrote.
        model: Weights, configuration and the history of the epochs.
        curves: The training page.
        metrics: The stage's numbers.
    """
    from pathlib import Path
    from tempfile import TemporaryDirectory

    from components._support import describe, log, publish, read_section
    from elcrec.stages.train import train as stage

    section = read_section("train", config)
    with TemporaryDirectory() as scratch:
        checkpoint = Path(scratch, "checkpoint")
        log(metrics, stage(section, Path(sequences.path), Path(model.path), checkpoint=checkpoint))
    publish(Path(model.path, "training.html"), curves)
    describe(model, file="model.safetensors", config=config)
