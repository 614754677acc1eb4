"""Expand a grid into the sections with which a sweep trains."""

from typing import List  # noqa: UP035 - kfp ships the function's source, and reads this name

from kfp import dsl

from components._image import IMAGE


@dsl.component(base_image=IMAGE, install_kfp_package=False)
def plan(config: str, grid: str) -> List[str]:  # noqa: UP006 - as above
    """Return a section `train` for each combination.

    Args:
        config: JSON of the section `train`.
        grid: JSON of fields and their values, such as `{"seed": [1, 2], "encoder.num_blocks": [1, 2]}`.
    """
    from elcrec.process import set_up_process

    set_up_process()

    from components._sweep import spread

    return spread(config, grid)
