"""Judge what is served, day by day."""

from kfp import dsl

from components._image import IMAGE


@dsl.component(base_image=IMAGE, install_kfp_package=False)
def monitor(
    config: str,
    engine: str,
    push: str,
    store: str,
    attributed: dsl.Input[dsl.Dataset],
    judged: dsl.Output[dsl.Artifact],
    page: dsl.Output[dsl.HTML],
    metrics: dsl.Output[dsl.Metrics],
) -> bool:
    """Run stage monitor.

    Its state from run to run is the folder `monitor` of the store, which is replaced last. A request to retrain is
    recorded there, so that another run within the cool-down makes none.

    Args:
        config: JSON of the section `monitor`.
        engine: JSON of the section `engine`.
        push: JSON of the section `push`, which names the model.
        store: Folder that outlives runs, also that of the registry, if no server is set.
        attributed: Output of exposures.
        judged: The days, the verdict and its reasons.
        page: The monitor's page.
        metrics: The stage's numbers.

    Returns:
        Whether this run requests retraining. It is the only result, because kfp.local resolves no other in a condition.
    """
    from elcrec.process import set_up_process

    set_up_process()

    import shutil
    from datetime import UTC, datetime
    from pathlib import Path

    from components._artifacts import describe, log, publish_page
    from components._sections import read_section
    from elcrec.adapters.engine import open_engine
    from elcrec.adapters.store import open_store
    from elcrec.artifacts import atomic_dir, read_json
    from elcrec.stages.monitor import monitor as stage

    out, kept = Path(judged.path), Path(store, "monitor")
    champion = open_store(Path(store)).registry.champion(read_section("push", push).model_name)
    found = stage(
        read_section("monitor", config),
        Path(attributed.path),
        out,
        engine=open_engine(read_section("engine", engine)),
        now=datetime.now(UTC),
        earlier=kept,
        bundle=None if champion is None else champion.bundle,
    )
    log(metrics, found)
    publish_page(out / "monitor.html", page)
    reasons = read_json(out / "monitor.json")["reasons"]
    facts = {"verdict": str(found["verdict"]), "retrain": "yes" if found["retrain"] else "no"}
    describe(judged, page, file="monitor.json", config=config, reason=" ".join(reasons), **facts)
    with atomic_dir(kept) as scratch:
        shutil.copyfile(out / "monitor.json", scratch / "monitor.json")
    return bool(found["retrain"])
