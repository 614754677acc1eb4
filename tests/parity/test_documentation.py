"""The commands in the documentation are accepted by the programs."""

import argparse
import re
import shlex
from pathlib import Path

import pytest

from elcrec import cli
from pipelines import cli as pipeline_cli

ROOT = Path(__file__).parents[2]
PAGES = [*sorted(ROOT.glob("*.md")), *sorted((ROOT / "docs").glob("*.md"))]
PARSERS = {"elcrec": cli._parser, "elcrec-pipeline": pipeline_cli._parser}


def _commands() -> list[str]:
    """Return the command lines in code blocks and table cells, without prompts, comments and redirections."""
    found = []
    for page in PAGES:
        for text in re.findall(
            r"(?m)^(?:\$ |)((?:elcrec(?! version)|elcrec-pipeline|make) .*)$|`((?:elcrec|make) [^`]+)`",
            page.read_text().replace(" \\\n", ""),
        ):
            found += re.split(r" (?:&&|\||>|;) ", "".join(text).split(" #")[0])[:1]
    return sorted(set(found))


@pytest.mark.parametrize("command", [command for command in _commands() if not command.startswith("make")])
def test_a_documented_command_is_understood(command: str) -> None:
    program, *arguments = shlex.split(command)
    if any(word.startswith("<") or word == "--help" for word in arguments):
        pytest.skip("a pattern, not a command")
    if len(arguments) == 1:  # a verb that is spoken of
        assert arguments[0] in PARSERS[program]().format_help().split()
        return
    options = PARSERS[program]().parse_args(arguments)
    assert isinstance(options, argparse.Namespace)


@pytest.mark.parametrize("command", [command for command in _commands() if command.startswith("make")])
def test_a_documented_target_exists(command: str) -> None:
    target = shlex.split(command)[1]
    assert re.search(rf"(?m)^{target}:", (ROOT / "Makefile").read_text())


def test_links_between_pages_lead_somewhere() -> None:
    for page in [*PAGES, *sorted((ROOT / "docs" / "adr").glob("*.md"))]:
        for link in re.findall(r"\]\((?!https?:)([^)#]+)\)", page.read_text()):
            assert (page.parent / link).exists(), f"{page.name} links to {link}"


@pytest.mark.parametrize("page", [*PAGES, *sorted((ROOT / "docs" / "adr").glob("*.md"))], ids=lambda page: page.name)
def test_lines_fit_on_a_screen(page: Path) -> None:
    made_by_script = page.name in {"RESULTS.md", "BENCHMARKS.md"}
    lines = page.read_text(encoding="utf-8").splitlines()
    too_long = [line for line in lines if len(line) > 120 and not (made_by_script and line.startswith("|"))]
    assert too_long == []
