"""Recommend for many users at once."""

from kfp import dsl

from components._image import IMAGE


@dsl.component(base_image=IMAGE, install_kfp_package=False)
def recommend(
    store: str,
    model: str,
    version: str,
    users: str,
    k: int,
    part: str,
    recommendations: dsl.Output[dsl.Dataset],
    metrics: dsl.Output[dsl.Metrics],
) -> None:
    """Run stage recommend-all.

    Args:
        store: Folder of the registry and the feature store, if no server is set.
        model: Name of the registered model.
        version: Its version, or `champion`.
        users: JSON list of raw ids; empty for all users of the last push.
        k: Number of items per user.
        part: Part of the users, such as 2/4 for the second of four; 1/1 for all.
        recommendations: A Parquet file: user_id, item_ids, scores, intent, source.
        metrics: The stage's numbers.
    """
    from elcrec.process import set_up_process

    set_up_process()

    import json
    from pathlib import Path

    from components._artifacts import describe, log
    from components._parameters import read_count, read_users
    from elcrec.adapters.store import open_store
    from elcrec.data.parts import Part
    from elcrec.serving.bundle import read_manifest
    from elcrec.stages.recommend import bundle_of
    from elcrec.stages.recommend_all import recommend_all

    place, out = open_store(Path(store)), Path(recommendations.path)
    bundle = bundle_of(model, version, place.registry)
    file, wanted = out / "recommendations.parquet", read_users(users)
    log(metrics, recommend_all(bundle, place.histories, file, read_count(k), wanted, Part.parse(part)))
    config = json.dumps({"model": model, "version": version, "k": k, "part": part})
    digest = read_manifest(bundle).digest
    describe(recommendations, file=file.name, config=config, bundle=digest)
