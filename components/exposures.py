"""Join the servers' exposures with the events that followed."""

from kfp import dsl

from components._image import IMAGE


@dsl.component(base_image=IMAGE, install_kfp_package=False)
def exposures(
    config: str,
    sequences: str,
    engine: str,
    store: str,
    folder: str,
    attributed: dsl.Output[dsl.Dataset],
    page: dsl.Output[dsl.HTML],
    metrics: dsl.Output[dsl.Metrics],
) -> None:
    """Run stage exposures.

    Args:
        config: JSON of the section `exposures`.
        sequences: JSON of the section `sequences`, which names the kinds of events that are dislikes.
        engine: JSON of the section `engine`.
        store: Folder with the event log and the salt of users' keys, if no server or secret is set.
        folder: The servers' exposures (`serve.exposures.folder`).
        attributed: One row per shown item, the metrics and the counts.
        page: The page of online metrics.
        metrics: The stage's numbers.
    """
    from elcrec.process import set_up_process

    set_up_process()

    from pathlib import Path

    from components._artifacts import describe, log, publish_page
    from components._sections import read_section
    from elcrec.adapters.engine import open_engine
    from elcrec.adapters.store import open_store
    from elcrec.stages.exposures import join_exposures as stage

    section, place, out = read_section("exposures", config), open_store(Path(store)), Path(attributed.path)
    opened, events = open_engine(read_section("engine", engine)), place.features.event_log
    dislikes = read_section("sequences", sequences).kinds.dislikes
    done = stage(section, Path(folder), out, salt=place.user_salt, engine=opened, log=events, dislikes=dislikes)
    log(metrics, done)
    publish_page(out / "online.html", page)
    describe(attributed, page, file="attributed.parquet", config=config)
