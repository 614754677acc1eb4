"""A compiled package: its name, its parameters, and the check of a run's arguments."""

import difflib
import inspect
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from elcrec.errors import UserError

TYPES: dict[str, tuple[type, ...]] = {
    "STRING": (str,),
    "NUMBER_INTEGER": (int,),
    "NUMBER_DOUBLE": (int, float),
    "BOOLEAN": (bool,),
    "LIST": (list,),
    "STRUCT": (dict,),
}
"""Python type of each parameter type of the pipeline language."""
CHECK = "configure"
"""The component that checks a run's parameters on the cluster; we run the same check before sending."""


@dataclass(frozen=True, kw_only=True)
class Package:
    """A compiled pipeline, as written by `elcrec-pipeline compile`."""

    path: Path
    spec: Mapping[str, Any]
    """The PipelineSpec as JSON."""

    @property
    def name(self) -> str:
        """The pipeline's name."""
        return str(self.spec["pipelineInfo"]["name"])

    @property
    def parameters(self) -> Mapping[str, Mapping[str, Any]]:
        """Type and default of every parameter of a run, by name."""
        found: Mapping[str, Mapping[str, Any]] = self.spec["root"].get("inputDefinitions", {}).get("parameters", {})
        return found

    def resolve(self, arguments: Mapping[str, Any]) -> dict[str, Any]:
        """Return `arguments` in the types that the pipeline declares; text for other types than string is read as JSON.

        Raises:
            UserError: a parameter is unknown or missing, has the wrong type, or a value that the schema refuses.
        """
        typed = {name: self._typed(name, value) for name, value in arguments.items()}
        for name, parameter in self.parameters.items():
            if name not in typed and "defaultValue" not in parameter and not parameter.get("isOptional"):
                raise UserError(f"parameter {name} has no value", where=self.name, fix=f"give --param {name}=VALUE")
        self._check_values(typed)
        return typed

    def without_cache(self, path: Path) -> "Package":
        """Write a copy to `path` without caching of tasks; kfp's own switch misses nested tasks."""
        documents = list(_documents(self.path))
        for component in (documents[0]["root"], *documents[0]["components"].values()):
            for task in component.get("dag", {}).get("tasks", {}).values():
                task.pop("cachingOptions", None)
        path.write_text(yaml.safe_dump_all(documents), encoding="utf-8")
        return load_package(path)

    def _typed(self, name: str, value: Any) -> Any:
        if name not in self.parameters:
            near = difflib.get_close_matches(name, self.parameters, n=1)
            fix = f"did you mean {near[0]}?" if near else f"it has {', '.join(sorted(self.parameters))}"
            raise UserError(f"the pipeline has no parameter {name}", where=self.name, fix=fix)
        kind = self.parameters[name]["parameterType"]
        parsed = _parse(value) if isinstance(value, str) and kind != "STRING" else value
        # A bool is an int in Python, but not for the server.
        fits = isinstance(parsed, TYPES.get(kind, object)) and isinstance(parsed, bool) == (kind == "BOOLEAN")
        if not fits:
            wanted = kind.removeprefix("NUMBER_").lower()
            raise UserError(f"{value!r} is not of type {wanted}", where=f"parameter {name}")
        return float(parsed) if kind == "NUMBER_DOUBLE" else parsed

    def _check_values(self, typed: Mapping[str, Any]) -> None:
        """Check parameters with the code of the components that take them.

        The body of every `configure` task that depends only on parameters is run, as the cluster will do.
        """
        from components._dvc import check_origin  # noqa: PLC0415 - imported where it is used, as configure is
        from components._parameters import read_count, read_users  # noqa: PLC0415 - as above
        from components._sweep import spread  # noqa: PLC0415 - as above
        from components.configure import configure  # noqa: PLC0415 - importing kfp takes two seconds

        values = {name: p["defaultValue"] for name, p in self.parameters.items() if "defaultValue" in p} | dict(typed)
        if "dvc_repository" in values:
            check_origin(**{name: values[f"dvc_{name}"] for name in ("repository", "revision", "path", "md5")})
        if "users" in values:
            read_users(values["users"])
            read_count(values["k"])
        for inputs in self._checks(self.spec["root"], values):
            try:
                inspect.signature(configure.python_func).bind(**inputs)
            except TypeError as error:
                fix = "compile it again with this one"
                raise UserError("compiled by another version of elcrec", where=self.path, fix=fix) from error
            sections = dict(zip(configure.component_spec.outputs, configure.python_func(**inputs), strict=True))
            if "grid" in values:
                spread(sections["train"], values["grid"])

    def _checks(self, component: Mapping[str, Any], values: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
        """Yield the inputs of the tasks that check parameters, in this graph and nested ones."""
        for task in component["dag"]["tasks"].values():
            name = task["componentRef"]["name"]
            inner = self.spec["components"][name]
            sources = task.get("inputs", {}).get("parameters", {})
            inputs = {key: value for key, source in sources.items() if (value := _value(source, values)) is not None}
            if name == f"comp-{CHECK}" and len(inputs) == len(sources):
                kinds = inner["inputDefinitions"]["parameters"]
                yield {key: _as_declared(value, kinds[key]["parameterType"]) for key, value in inputs.items()}
            elif "dag" in inner:
                yield from self._checks(inner, inputs)


def load_package(path: Path) -> Package:
    """Read a compiled package.

    Raises:
        UserError: the file is missing or not a compiled pipeline.
    """
    try:
        spec = next(_documents(path), None)
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise UserError(f"not readable ({error})", where=path) from error
    if path.suffix not in {".yaml", ".yml"} or not isinstance(spec, dict) or not {"pipelineInfo", "root"} <= set(spec):
        fix = "give a .yaml file written by `elcrec-pipeline compile`"
        raise UserError("not a compiled pipeline", where=path, fix=fix)
    return Package(path=path, spec=spec)


def _documents(path: Path) -> Iterator[Any]:
    """Yield the documents of a package, with libyaml if PyYAML has it, because its own parser takes seconds."""
    return yaml.load_all(path.read_text(encoding="utf-8"), Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader))


def _parse(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        return text


def _value(source: Mapping[str, Any], values: Mapping[str, Any]) -> Any:
    """Return the value of a task's input; `None` if only the run determines it."""
    if "componentInputParameter" in source:
        return values.get(source["componentInputParameter"])
    constant = source.get("runtimeValue", {}).get("constant")
    return None if isinstance(constant, str) and "{{$" in constant else constant


def _as_declared(value: Any, kind: str) -> Any:
    """Return the package's numbers, which are all floats, in the types that the component gets."""
    return int(value) if kind == "NUMBER_INTEGER" else value
