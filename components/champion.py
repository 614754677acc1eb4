"""Name the model from which retraining starts."""

from kfp import dsl

from components._image import IMAGE


@dsl.component(base_image=IMAGE, install_kfp_package=False)
def champion(config: str, store: str) -> str:
    """Look the champion up.

    Args:
        config: JSON of the section `push`.
        store: Folder of the registry, if no server is set.

    Returns:
        Its name and the digest of its bundle, `NAME@DIGEST`, by which a cached result is recognised; empty if there is
        no champion yet.
    """
    from elcrec.process import set_up_process

    set_up_process()

    from pathlib import Path

    from components._champion import name_champion
    from components._sections import read_section
    from elcrec.adapters.store import open_store

    return name_champion(open_store(Path(store)).registry, read_section("push", config).model_name)
