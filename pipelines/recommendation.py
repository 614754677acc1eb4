"""The pipeline that recommends for many users at once: from a pushed model and a list of users to Parquet."""

from collections.abc import Mapping
from typing import Any

from kfp import dsl

from components.outcome import outcome
from components.recommend import recommend
from elcrec.config import Config
from elcrec.serving.ports import CHAMPION
from pipelines.platform import Platform
from pipelines.tasks import RUN_NAME, Places, place
from pipelines.training import pipeline


def recommendation(config: Config, platform: Platform, places: Places) -> Any:
    """Return the pipeline; its parameters are those of component recommend, except the store and the part."""
    name, parts = "elcrec-recommendation", platform.recommendation_parts
    parameters = {
        "model": config.push.model_name,
        "version": CHAMPION,
        "users": "",
        "k": 20,
    }

    def graph(given: Mapping[str, Any]) -> None:
        with dsl.ExitHandler(place(outcome(pipeline=name, run_name=RUN_NAME), "outcome", platform), name="steps"):
            # Parallel tasks instead of a loop, which is reported to fail inside an exit handler (docs/kubeflow.md).
            for index in range(1, parts + 1):
                task = recommend(**given, part=f"{index}/{parts}", store=places.store)
                place(task, "recommend", platform, name=f"recommend-{index}" if parts > 1 else None)

    return pipeline(name, "Recommend for many users with a pushed model.", parameters, graph)
