"""Documentation pages generated from the code, called by MkDocs in `make docs`.

Commands come from the parsers, parameters from elcrec.config and its docstrings, and a file of the sources that a page
links to becomes a page of its own, so that the site holds all that it points to.
"""

import argparse
import ast
import inspect
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec

ROOT = Path(__file__).parents[1]
_PYTHON: dict[str, str | tuple[str, ...]] = {
    "Stages": "stages",
    "Parameters": "config",
    "Names and artifacts": ("registry", "artifacts", "errors"),
    "What stages and the server need of the outside world": ("serving.ports", "data.engine"),
    "Loss terms": "training.terms",
    "Attribution and monitoring": "monitoring",
}
"""Headings of the page on the Python API, with the modules or the package under each."""
_SOURCE_LINK = re.compile(r"\]\(((?:\.\./)+)((?:src|pipelines|components)/[\w./]+\.(?:py|yaml))\)")


def on_files(files: Any, config: Any) -> Any:
    """Add the generated pages (MkDocs' event of this name)."""
    from mkdocs.structure.files import File  # noqa: PLC0415 - MkDocs, which calls this, is installed then

    pages = {
        "reference/commands.md": commands(),
        "reference/parameters.md": parameters(),
        "reference/python.md": python(),
    }
    for file in files.documentation_pages():
        pages |= {_page_of(path): source(path) for path in _linked_sources(file.content_string)}
    for place, content in pages.items():
        files.append(File.generated(config, place, content=content))
    return files


def on_page_markdown(markdown: str, page: Any, **_: Any) -> str:
    """Redirect links to sources to their pages (MkDocs' event of this name)."""
    up = "../" * page.file.src_uri.count("/")
    return _SOURCE_LINK.sub(lambda found: f"]({up}{_page_of(found[2])})", markdown)


def commands() -> str:
    """Return the page of all commands, with the output of their help."""
    from elcrec.cli import _parser as elcrec  # noqa: PLC0415 - not needed to read a page
    from pipelines.cli import _parser as elcrec_pipeline  # noqa: PLC0415 - as above

    lines = ["# Commands", "", "What `--help` says of each command."]
    for parser in (elcrec(), elcrec_pipeline()):
        for command in _subcommands(parser):
            lines += ["", f"## {command.prog}", "", "```text", command.format_help().strip(), "```"]
    return "\n".join(lines) + "\n"


def _subcommands(parser: argparse.ArgumentParser) -> Iterator[argparse.ArgumentParser]:
    """Yield the parsers of all commands without subcommands."""
    inner = [action for action in parser._actions if isinstance(action, argparse._SubParsersAction)]  # noqa: SLF001
    if not inner:
        yield parser
    for action in inner:
        for command in action.choices.values():
            yield from _subcommands(command)


def parameters() -> str:
    """Return the page of all parameters: name, type, default and what stands below it in elcrec.config."""
    from elcrec.config import Config  # noqa: PLC0415 - not needed to read a page

    modules = sorted((ROOT / "src" / "elcrec" / "config").glob("*.py"))
    told = {key: text for path in modules for key, text in _docstrings(path).items()}
    lines = ["# Parameters", "", "Every parameter of `params.yaml`, as `elcrec.config` documents it."]
    for section in msgspec.structs.fields(Config):
        lines += ["", f"## {section.name}", "", told["Config", section.name]]
        for name, field, owner in _fields(section.type, section.name):
            kind, default = told[owner, field.name, "type"], told.get((owner, field.name, "default"))
            said = f"`{kind}`" + (f", default `{default}`" if default else ", required")
            lines += ["", f"`{name}` ({said})", "", f":   {told[owner, field.name]}"]
    return "\n".join(lines) + "\n"


def _fields(kind: Any, prefix: str) -> Iterator[tuple[str, msgspec.structs.FieldInfo, str]]:
    """Yield the parameters of a section and its nested sections: dotted names, and the class of each."""
    for field in msgspec.structs.fields(kind):
        name = f"{prefix}.{field.name}"
        if isinstance(field.type, type) and issubclass(field.type, msgspec.Struct):
            yield from _fields(field.type, name)
        else:
            yield name, field, _owner(kind, field.name)


def _owner(kind: type, field: str) -> str:
    return next(base.__name__ for base in kind.__mro__ if field in inspect.get_annotations(base))


def _docstrings(path: Path) -> dict[tuple[str, ...], str]:
    """Return the docstring, type and default of each field of a module's classes, by class and field."""
    found = dict[tuple[str, ...], str]()
    for kind in ast.parse(path.read_text(encoding="utf-8")).body:
        if not isinstance(kind, ast.ClassDef):
            continue
        for field, below in zip(kind.body, [*kind.body[1:], ast.Pass()], strict=True):
            if not isinstance(field, ast.AnnAssign) or not isinstance(field.target, ast.Name):
                continue
            key = kind.name, field.target.id
            found[*key, "type"] = ast.unparse(field.annotation)
            if field.value is not None:
                found[*key, "default"] = _default(field.value)
            if isinstance(below, ast.Expr) and isinstance(below.value, ast.Constant):
                found[key] = " ".join(str(below.value.value).split())
    return found


def _default(value: ast.expr) -> str:
    """Return a default as source text; for a factory without arguments, the value that it creates."""
    if isinstance(value, ast.Call) and value.keywords and value.keywords[0].arg == "default_factory":
        return {"dict": "{}", "list": "[]"}.get(made := ast.unparse(value.keywords[0].value), made)
    return ast.unparse(value)


def python() -> str:
    """Return the page of the Python API, which mkdocstrings fills in."""
    lines = ["# Python"]
    for heading, place in _PYTHON.items():
        names = _modules(place) if isinstance(place, str) else place
        lines += ["", f"## {heading}", *(line for name in names for line in ("", f"::: elcrec.{name}"))]
    return "\n".join(lines) + "\n"


def _modules(package: str) -> list[str]:
    folder = ROOT / "src" / "elcrec" / Path(*package.split("."))
    return [f"{package}.{path.stem}" for path in sorted(folder.glob("[!_]*.py"))]


def source(path: str) -> str:
    """Return a page that shows a source file."""
    kind = "python" if path.endswith(".py") else "yaml"
    return f"# {path}\n\n````{kind}\n{(ROOT / path).read_text(encoding='utf-8')}````\n"


def _page_of(path: str) -> str:
    return f"source/{path}.md"


def _linked_sources(markdown: str) -> set[str]:
    return {found[2] for found in _SOURCE_LINK.finditer(markdown)}
