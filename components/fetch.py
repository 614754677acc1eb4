"""Get the raw log: a public data set, the synthetic sample, your own file, or a file of a DVC repository."""

from kfp import dsl

from components._image import IMAGE


@dsl.component(base_image=IMAGE, install_kfp_package=False)
def fetch(
    config: str,
    dvc_repository: str,
    dvc_revision: str,
    dvc_path: str,
    dvc_md5: str,
    raw: dsl.Output[dsl.Dataset],
    metrics: dsl.Output[dsl.Metrics],
) -> None:
    """Run stage fetch; if a DVC repository is named, on exactly the bytes of its revision.

    Args:
        config: JSON of the section `fetch`, as component resolve returns it: its version is part of the cache's key.
        dvc_repository: Git address or path of a DVC repository; empty to use `config`.
        dvc_revision: The commit, as component resolve returns it.
        dvc_path: The log inside the repository.
        dvc_md5: Checksum that DVC must record and the bytes must have.
        raw: The raw log and source.json.
        metrics: The stage's numbers.
    """
    from elcrec.process import set_up_process

    set_up_process()

    import os
    from pathlib import Path
    from tempfile import TemporaryDirectory

    from components._artifacts import describe, log
    from components._dvc import DvcFile, provenance_of, pull, read_from
    from components._sections import read_section
    from elcrec.adapters.objects import local_copy
    from elcrec.artifacts import read_json
    from elcrec.stages.fetch import fetch as stage

    section, provenance = read_section("fetch", config), {}
    mirror = Path(os.environ["ELCREC_MIRROR"]) if os.environ.get("ELCREC_MIRROR") else None
    with TemporaryDirectory() as scratch:
        if dvc_repository:
            origin = DvcFile(repository=dvc_repository, revision=dvc_revision, path=dvc_path, md5=dvc_md5)
            pull(origin, Path(scratch, "log"))
            section, provenance = read_from(Path(scratch, "log"), origin, section), provenance_of(origin)
        with local_copy(section) as (local, known):
            provenance |= known
            log(metrics, stage(local, Path(raw.path), mirror=mirror, provenance=provenance))
    source = read_json(Path(raw.path, "source.json"))
    describe(raw, file=source["file"], config=config, data_md5=source["md5"], **provenance)
