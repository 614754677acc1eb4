"""The documentation as a site: built without warnings, and complete without a network."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from release.site import parameters

ROOT = Path(__file__).parents[2]

pytestmark = pytest.mark.slow
pytest.importorskip("mkdocs", reason="install the extra docs (make setup)")


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The site; a dead link, a missing page or a docstring that cannot be read is a failure."""
    folder = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", str(folder)]
    variables = {**os.environ, "NO_MKDOCS_2_WARNING": "1"}
    done = subprocess.run(command, cwd=ROOT, env=variables, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stderr == ""
    return folder


def test_no_page_needs_a_network(site: Path) -> None:
    pages = list(site.rglob("*.html"))
    assert len(pages) > 40
    for page in pages:
        text = page.read_text(encoding="utf-8")
        fetched = re.findall(r"<(?:script|img|iframe)[^>]*\ssrc=\"(https?:[^\"]*)", text)
        fetched += re.findall(r"<link[^>]*rel=\"(?:stylesheet|preconnect|icon)\"[^>]*href=\"(https?:[^\"]*)", text)
        assert not fetched, page


def test_a_source_that_a_page_links_to_is_a_page(site: Path) -> None:
    extending = (site / "extending.html").read_text(encoding="utf-8")
    assert 'href="source/src/elcrec/model/mixer.py.html"' in extending
    assert "Mixer" in (site / "source/src/elcrec/model/mixer.py.html").read_text(encoding="utf-8")


def test_every_command_has_its_help(site: Path) -> None:
    page = (site / "reference" / "commands.html").read_text(encoding="utf-8")
    for command in ("elcrec train", "elcrec serve", "elcrec events", "elcrec-pipeline run", "elcrec-pipeline submit"):
        assert f"usage: {command} " in page


def test_every_parameter_has_a_description() -> None:
    page = parameters()
    assert "`train.encoder.num_heads` (`Positive`, default `2`)" in page
    assert "`serve.limits." in page
    said = re.findall(r"(?m)^`[\w.]+` \(.*\)\n\n:   (.*)$", page)
    assert len(said) == len(re.findall(r"(?m)^`[\w.]+` \(", page)) > 150
    assert all(len(text) > 10 for text in said)
