"""The pipeline that recommends for many users at once: a pushed model and a list of users in, Parquet out."""

from collections.abc import Mapping
from typing import Any

from kfp import dsl

from components.outcome import outcome
from components.recommend import recommend
from elcrec.config import Config
from pipelines.platform import Platform
from pipelines.tasks import Places, place
from pipelines.training import pipeline


def recommendation(config: Config, platform: Platform, places: Places) -> Any:
    """Return the pipeline; its parameters are those of component recommend but for the store, a pod for each part."""
    name = "elcrec-recommendation"
    parameters = {
        "model": config.push.model_name,
        "version": "champion",
        "users": "",
        "k": 20,
        "parts": ["1/1"],
    }

    def graph(given: Mapping[str, Any]) -> None:
        asked = {name: value for name, value in given.items() if name != "parts"}
        with (
            dsl.ExitHandler(place(outcome(pipeline=name), "outcome", platform), name="steps"),
            dsl.ParallelFor(given["parts"], name="parts", parallelism=platform.sweep_width) as part,
        ):
            place(recommend(**asked, part=part, store=places.store), "recommend", platform)

    return pipeline(name, "Recommend for many users with a pushed model.", parameters, graph)
