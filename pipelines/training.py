"""The training pipeline: from a raw log to a pushed model, the gate between them."""

import json
from dataclasses import dataclass
from typing import Any

from kfp import dsl, kubernetes

from components._image import IMAGE
from components.configure import configure
from components.evaluate import evaluate
from components.fetch import fetch
from components.gate import gate
from components.push import push
from components.sequences import sequences
from components.train import train
from components.validate import validate
from elcrec.config import Config, to_dict

STORE_MOUNT = "/store"


@dataclass(frozen=True, kw_only=True)
class Settings:
    """What is fixed when the pipeline is compiled."""

    image: str = IMAGE
    """Image of every component; pin it by digest, as the cache goes by this string."""
    accelerator: str = "nvidia.com/gpu"
    """Kubernetes resource that train and baseline ask for."""
    accelerators: int = 0
    """How many of it each asks for; 0 trains on the CPU."""
    store_claim: str = ""
    """PersistentVolumeClaim mounted at `/store`, the default of `store` then; empty mounts none."""


def build(config: Config, settings: Settings) -> Any:
    """Return the KFP pipeline whose parameters default to `config`."""
    defaults = json.dumps(to_dict(config), sort_keys=True)
    own_store = STORE_MOUNT if settings.store_claim else "artifacts/store"

    @dsl.pipeline(name="elcrec-training", description="Validate, train, evaluate and push ELCRec.")
    def training(
        dataset: str = config.fetch.dataset,
        dvc_repository: str = "",
        dvc_revision: str = "",
        dvc_path: str = "",
        dvc_md5: str = "",
        overrides: str = "{}",
        store: str = own_store,
    ) -> None:
        section = configure(defaults=defaults, dataset=dataset, overrides=overrides)
        log = fetch(
            config=section.outputs["fetch"],
            dvc_repository=dvc_repository,
            dvc_revision=dvc_revision,
            dvc_path=dvc_path,
            dvc_md5=dvc_md5,
        )
        checked = validate(config=section.outputs["validate"], store=store, raw=log.outputs["raw"])
        built = sequences(config=section.outputs["sequences"], validated=checked.outputs["validated"])
        rows = built.outputs["sequences"]
        model = train(config=section.outputs["train"], sequences=rows)
        baseline = train(config=section.outputs["baseline"], sequences=rows).set_display_name("baseline")
        judged = evaluate(
            config=section.outputs["evaluate"],
            model=model.outputs["model"],
            baseline=baseline.outputs["model"],
            sequences=rows,
            raw=log.outputs["raw"],
        )
        challenger = {
            "config": section.outputs["push"],
            "store": store,
            "model": model.outputs["model"],
            "sequences": rows,
            "evaluation": judged.outputs["evaluation"],
        }
        decision = gate(**challenger)
        with dsl.If(decision.outputs["Output"] == True, name="accepted"):  # noqa: E712 - kfp builds a condition
            pushed = push(**challenger)

        for task in (section, log, checked, built, model, baseline, judged, decision, pushed):
            task.set_container_image(settings.image)
        for task in (decision, pushed):
            task.set_caching_options(enable_caching=False)
        for task in (model, baseline):
            _request_accelerators(task, settings)
        for task in (checked, decision, pushed):
            _mount_store(task, settings)

    return training


def _request_accelerators(task: Any, settings: Settings) -> None:
    if settings.accelerators:
        task.set_accelerator_type(settings.accelerator)
        task.set_accelerator_limit(settings.accelerators)


def _mount_store(task: Any, settings: Settings) -> None:
    if settings.store_claim:
        kubernetes.mount_pvc(task, pvc_name=settings.store_claim, mount_path=STORE_MOUNT)
