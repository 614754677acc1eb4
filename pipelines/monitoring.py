"""The pipeline that monitors serving: from exposures and events to a verdict, with retraining if it is due.

Retraining is a branch of the same run, not a run that a step submits. So a step needs no permission to start runs, all
tasks are in one graph, and the outcome covers them. The monitor records its request, so that the next run within the
cool-down makes none.
"""

from collections.abc import Mapping
from typing import Any

from kfp import dsl

from components._parameters import choices_of
from components.exposures import exposures
from components.monitor import monitor
from components.outcome import outcome
from elcrec.config import Config
from pipelines.platform import Platform
from pipelines.tasks import RUN_NAME, Places, place
from pipelines.training import from_champion, parameters_of, pipeline, sections_of, to_push, with_choices


def monitoring(config: Config, platform: Platform, places: Places) -> Any:
    """Return the pipeline; its parameters are those of retraining, and the folder of exposures."""
    name, about = "elcrec-monitoring", "Judge what is served, and retrain from the champion if that is due."
    parameters = {"exposures": f"{places.store}/exposures", **parameters_of(config)}

    def graph(given: Mapping[str, Any]) -> None:
        with dsl.ExitHandler(place(outcome(pipeline=name, run_name=RUN_NAME), "outcome", platform), name="steps"):
            section = sections_of(config, given, platform)
            engine = {"engine": section["engine"], "store": places.store}
            sections = {"config": section["exposures"], "sequences": section["sequences"]}
            joined = exposures(**sections, folder=given["exposures"], **engine)
            attributed = place(joined, "exposures", platform).outputs["attributed"]
            judged = monitor(config=section["monitor"], push=section["push"], attributed=attributed, **engine)
            asked = place(judged, "monitor", platform).outputs["Output"]
            with dsl.If(asked == True, name="retrain"):  # noqa: E712 - kfp builds a condition
                to_push(given, section, platform, places, from_champion)

    return with_choices(pipeline(name, about, parameters, graph), choices_of(config))
