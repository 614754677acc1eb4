"""The pipeline's parameters, checked once and cut into a section a component."""

from typing import NamedTuple

from kfp import dsl

from components._image import IMAGE


@dsl.component(base_image=IMAGE, install_kfp_package=False)
def configure(defaults: str, dataset: str, overrides: str) -> NamedTuple(  # type: ignore[valid-type] # kfp reads output names here, and ships nothing outside the function
    "Sections",
    [
        ("fetch", str),
        ("validate", str),
        ("sequences", str),
        ("train", str),
        ("evaluate", str),
        ("push", str),
        ("baseline", str),
    ],
):
    """Lay the run's parameters over the compiled defaults.

    A component is cached by its own section: changing one parameter re-runs what depends on it.

    Args:
        defaults: JSON of all sections, fixed at compile time.
        dataset: Replaces `fetch.dataset`.
        overrides: JSON of sections laid over the rest, such as `{"train": {"epochs": 5}}`.
    """
    from components._support import apply, write_sections

    return tuple(write_sections(apply(defaults, dataset, overrides)).values())
