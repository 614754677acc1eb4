"""Determine the version of the log for a run."""

from typing import NamedTuple

from kfp import dsl

from components._image import IMAGE


@dsl.component(base_image=IMAGE, install_kfp_package=False)
def resolve(
    config: str,
    dvc_repository: str,
    dvc_revision: str,
    dvc_path: str,
    dvc_md5: str,
) -> NamedTuple(  # type: ignore[valid-type] # kfp reads output names here, and ships nothing outside the function
    "Version",
    [
        ("commit", str),
        ("md5", str),
        ("config", str),
    ],
):
    """Look up the version that a branch or tag has now, so that fetch is cached by it and not by a moving name.

    Args:
        config: JSON of the section `fetch`.
        dvc_repository: Git address or path of a DVC repository; empty if the log does not come from one.
        dvc_revision: Commit, branch or tag.
        dvc_path: The log inside the repository.
        dvc_md5: Checksum that DVC must record; empty accepts any.

    Returns:
        The commit, and the md5 in the .dvc file or dvc.lock of that commit, both empty without a repository; and the
        section, with the present version of your own file if it is at an address.
    """
    from elcrec.process import set_up_process

    set_up_process()

    from components._dvc import find_version
    from components._sections import read_section, write_section
    from elcrec.adapters.objects import pinned

    if not dvc_repository:
        return "", "", write_section(pinned(read_section("fetch", config)))
    found = find_version(dvc_repository, dvc_revision, dvc_path, dvc_md5)
    return found.revision, found.md5, config
