"""The pipeline's parameters, checked once and split into one section per component."""

from typing import NamedTuple

from kfp import dsl

from components._image import IMAGE


@dsl.component(base_image=IMAGE, install_kfp_package=False)
def configure(
    defaults: str,
    dataset: str,
    file_location: str,
    objective: str,
    loss: str,
    num_intents: int,
    epochs: int,
    batch_size: int,
    learning_rate: float,
    seed: int,
    min_ndcg: float,
    max_regression: float,
    overrides: str,
) -> NamedTuple(  # type: ignore[valid-type] # kfp reads output names here, and ships nothing outside the function
    "Sections",
    [
        ("fetch", str),
        ("validate", str),
        ("sequences", str),
        ("train", str),
        ("evaluate", str),
        ("push", str),
        ("exposures", str),
        ("monitor", str),
        ("engine", str),
        ("baseline", str),
    ],
):
    """Lay the run's parameters over the compiled defaults.

    A component is cached by its own section: changing one parameter re-runs what depends on it.

    Args:
        defaults: JSON of all sections, fixed at compile time.
        dataset: Replaces `fetch.dataset`.
        file_location: Replaces `fetch.file.path`.
        objective: Replaces `train.objective`.
        loss: Replaces `train.next_item.loss`.
        num_intents: Replaces `train.intents.num_intents`.
        epochs: Replaces `train.epochs`.
        batch_size: Replaces `train.batch_size`.
        learning_rate: Replaces `train.learning_rate`.
        seed: Replaces `train.seed`.
        min_ndcg: Replaces the floor of `ndcg@20` in `push.gate.floors`.
        max_regression: Replaces `push.gate.max_regression`.
        overrides: JSON of sections laid over the rest, such as `{"train": {"eval_every": 5}}`.
    """
    from elcrec.process import set_up_process

    set_up_process()

    from components._parameters import apply
    from components._sections import write_sections

    parameters = {
        "dataset": dataset,
        "file_location": file_location,
        "objective": objective,
        "loss": loss,
        "num_intents": num_intents,
        "epochs": epochs,
        "batch_size": batch_size,
        "learning_rate": learning_rate,
        "seed": seed,
        "min_ndcg": min_ndcg,
        "max_regression": max_regression,
    }
    return tuple(write_sections(apply(defaults, parameters, overrides)).values())
