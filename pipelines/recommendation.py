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
    """Return the pipeline; its parameters are those of component recommend but for the store."""
    name = "elcrec-recommendation"
    parameters = {
        "model": config.push.model_name,
        "version": "champion",
        "users": "",
        "k": 20,
    }

    def graph(given: Mapping[str, Any]) -> None:
        with dsl.ExitHandler(place(outcome(pipeline=name), "outcome", platform), name="steps"):
            place(recommend(**given, store=places.store), "recommend", platform)

    return pipeline(name, "Recommend for many users with a pushed model.", parameters, graph)
