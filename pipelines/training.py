"""The pipelines that end with a push: training, retraining from the champion, and a sweep.

All have the same steps from a raw log to the gate; they differ in how the model is trained.
"""

import inspect
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from kfp import dsl

from components._parameters import choices_of, values_of
from components.champion import champion
from components.configure import configure
from components.evaluate import evaluate
from components.fetch import fetch
from components.gate import gate
from components.outcome import outcome
from components.plan import plan
from components.push import push
from components.require_valid import require_valid
from components.resolve import resolve
from components.select import select
from components.sequences import sequences
from components.train import train
from components.validate import validate
from elcrec.config import Config, to_dict
from pipelines.platform import Platform
from pipelines.tasks import RUN_NAME, Places, cluster_of, place, processes_of, spark_of

Graph = Callable[[Mapping[str, Any]], None]
_DVC = ("dvc_repository", "dvc_revision", "dvc_path", "dvc_md5")
_GRID = '{"seed": [1, 2, 3]}'


def training(config: Config, platform: Platform, places: Places) -> Any:
    """Return the pipeline that trains one model."""

    def one(context: PipelineContext) -> Any:
        return context.train(context.section["train"])

    return _ending_in_push("training", "Validate, train, evaluate and push ELCRec.", config, platform, places, one)


def retraining(config: Config, platform: Platform, places: Places) -> Any:
    """Return the pipeline that retrains from the champion, meant for recurring runs."""
    about = "Retrain from the champion, on a new revision of the log."
    return _ending_in_push("retraining", about, config, platform, places, from_champion)


def from_champion(context: "PipelineContext") -> Any:
    """Add the tasks that train from the champion; return the last one."""
    found = context.place("champion", champion(config=context.section["push"], store=context.places.store))
    return context.train(context.section["train"], warm_start=found.output)


def sweep(config: Config, platform: Platform, places: Places) -> Any:
    """Return the pipeline that trains a grid of models, of which the best by validation goes to the gate."""

    def best_of_grid(context: PipelineContext) -> Any:
        grid = context.place("plan", plan(config=context.section["train"], grid=context.given["grid"]))
        with dsl.ParallelFor(grid.output, name="members", parallelism=context.platform.sweep_width) as section:
            member = context.train(section)
        return context.place("select", select(models=dsl.Collected(member.outputs["model"])))

    about = "Train a grid of models, push the best by validation."
    return _ending_in_push("sweep", about, config, platform, places, best_of_grid, grid=_GRID)


@dataclass(frozen=True, kw_only=True)
class PipelineContext:
    """The context of the steps from the sequences to a model.

    Attributes:
        platform: the platform of the steps.
        places: folders that outlive pods.
        given: the run's parameters.
        section: JSON of each component's section.
        sequences: output of sequences.
    """

    platform: Platform
    places: Places
    given: Mapping[str, Any]
    section: Mapping[str, Any]
    sequences: Any

    def place(self, step: str, task: Any) -> Any:
        return place(task, step, self.platform)

    def train(self, section: Any, warm_start: Any = "", name: str = "train") -> Any:
        places = asdict(self.places)
        hosts = {"cluster": cluster_of(self.platform), "processes": processes_of(self.platform)}
        task = train(config=section, sequences=self.sequences, warm_start=warm_start, **hosts, **places)
        return place(task, "train", self.platform, name=name)


def _ending_in_push(
    name: str,
    about: str,
    config: Config,
    platform: Platform,
    places: Places,
    model_of: Callable[[PipelineContext], Any],
    **more: str,
) -> Any:
    parameters = {**parameters_of(config), **more}

    def graph(given: Mapping[str, Any]) -> None:
        told = place(outcome(pipeline=f"elcrec-{name}", run_name=RUN_NAME), "outcome", platform)
        with dsl.ExitHandler(told, name="steps"):
            to_push(given, sections_of(config, given, platform), platform, places, model_of)

    return with_choices(pipeline(f"elcrec-{name}", about, parameters, graph), choices_of(config))


def parameters_of(config: Config) -> dict[str, Any]:
    """Return the parameters of a run that may end with a push, with their defaults."""
    return {**values_of(config), **dict.fromkeys(_DVC, ""), "accept_drift": "", "overrides": "{}"}


def sections_of(config: Config, given: Mapping[str, Any], platform: Platform) -> Mapping[str, Any]:
    """Check the run's parameters in a task; return each component's section."""
    defaults = json.dumps(to_dict(config), sort_keys=True)
    chosen = {key: given[key] for key in (*values_of(config), "overrides")}
    section: Mapping[str, Any] = place(configure(defaults=defaults, **chosen), "configure", platform).outputs
    return section


def to_push(
    given: Mapping[str, Any],
    section: Mapping[str, Any],
    platform: Platform,
    places: Places,
    model_of: Callable[[PipelineContext], Any],
) -> None:
    """Create the tasks from the raw log to the push; `model_of` creates the training tasks, and returns the last."""
    raw = _fetch(section["fetch"], given, platform)
    built = _build_sequences(section, given["accept_drift"], places.store, raw, platform)
    context = PipelineContext(platform=platform, places=places, given=given, section=section, sequences=built)
    model = model_of(context).outputs["model"]
    inputs = {"model": model, "raw": raw}
    if platform.baseline:
        inputs["baseline"] = context.train(section["baseline"], name="baseline").outputs["model"]
    _judge_and_push(context, **inputs)


def _fetch(section: Any, given: Mapping[str, Any], platform: Platform) -> Any:
    name = {key: given[key] for key in _DVC}
    version = place(resolve(config=section, **name), "resolve", platform).outputs
    name |= {"dvc_revision": version["commit"], "dvc_md5": version["md5"]}
    return place(fetch(config=version["config"], **name), "fetch", platform).outputs["raw"]


def _build_sequences(section: Mapping[str, Any], accept_drift: Any, store: str, raw: Any, platform: Platform) -> Any:
    engine = {"engine": section["engine"], "spark": spark_of(platform)}
    judged = validate(config=section["validate"], **engine, store=store, accept_drift=accept_drift, raw=raw)
    checked = place(judged, "validate", platform).outputs
    verdict = {name: checked[name] for name in ("accepted", "reason")}
    required = place(require_valid(**verdict), "require_valid", platform)
    built = sequences(config=section["sequences"], **engine, validated=checked["validated"]).after(required)
    return place(built, "sequences", platform).outputs["sequences"]


def _judge_and_push(context: PipelineContext, *, model: Any, raw: Any, **baseline: Any) -> None:
    inputs = {"model": model, "sequences": context.sequences}
    judged = evaluate(config=context.section["evaluate"], raw=raw, **inputs, **baseline)
    evaluation = context.place("evaluate", judged).outputs["evaluation"]
    challenger = {"config": context.section["push"], "store": context.places.store, "evaluation": evaluation, **inputs}
    decision = context.place("gate", gate(**challenger))
    with dsl.If(decision.outputs["Output"] == True, name="accepted"):  # noqa: E712 - kfp builds a condition
        context.place("push", push(**challenger, run_name=RUN_NAME))


def with_choices(pipeline: Any, choices: Mapping[str, Sequence[str]]) -> Any:
    """Restrict a parameter in the run form to these values, for which kfp's compiler has no option."""
    declared = pipeline.pipeline_spec.root.input_definitions.parameters
    for name, values in choices.items():
        for value in values:
            declared[name].literals.add().string_value = value
    return pipeline


def pipeline(name: str, description: str, parameters: Mapping[str, Any], graph: Graph) -> Any:
    """Return a KFP pipeline with these parameters and defaults, whose tasks `graph` creates."""

    def traced(*values: Any) -> None:
        graph(dict(zip(parameters, values, strict=True)))

    # kfp reads a pipeline's parameters from its signature.
    kind = inspect.Parameter.POSITIONAL_OR_KEYWORD
    signature = [inspect.Parameter(n, kind, default=v, annotation=type(v)) for n, v in parameters.items()]
    traced.__signature__ = inspect.Signature(signature)  # type: ignore[attr-defined]
    return dsl.pipeline(name=name, description=description)(traced)
