"""The imports of Python code, read from its source."""

import ast
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple


class Import(NamedTuple):
    """`import module`, without names, or `from module import names`."""

    module: str
    names: tuple[str, ...] = ()


def imports_of(path: Path) -> Iterator[Import]:
    """Every import of a file, at its head or inside a function."""
    return imports_in(ast.parse(path.read_text(encoding="utf-8")), where=path)


def imports_in(tree: ast.AST, *, where: object) -> Iterator[Import]:
    """Every import in a piece of code."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (Import(alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.module is not None, f"{where}: relative import"
            assert node.level == 0, f"{where}: relative import"
            yield Import(node.module, tuple(alias.name for alias in node.names))


def imports_at_import(path: Path) -> Iterator[Import]:
    """The imports that happen when a file itself is imported, those of functions left out."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            node.body = []
    return imports_in(tree, where=path)
