"""What the documentation tells people to type is true: every code block runs, or is checked against the code."""

import csv
import json
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from pathlib import Path

import msgspec
import pyarrow.csv
import pyarrow.parquet as pq
import pytest
import yaml
from feast.repo_config import RepoConfig

from components._outcome import BODY_VERSION, Outcome
from elcrec.config import Config, merge, parse_config
from pipelines.platform import Platform, load_platform
from tests.support.documentation import (
    LANGUAGES,
    PAGES,
    PARSERS,
    ROOT,
    RUN,
    TESTED_ELSEWHERE,
    Block,
    Folder,
    blocks_of,
    complaints_of_make,
    complaints_of_parser,
    locate,
)
from tests.support.serving import Installation, eventually, serving

BLOCKS = [block for page in PAGES for block in blocks_of(page)]
FAULTY, SOUND = 60, 1940
"""Rows of the log `data/shop.csv`, as data.md shows how it is refused."""


def blocks_in(*languages: str) -> list[Block]:
    return [block for block in BLOCKS if block.language in languages and block.page.name not in TESTED_ELSEWHERE]


def spoken_of() -> list[str]:
    """Return the commands within sentences and tables."""
    return sorted({code for page in PAGES for code in re.findall(r"`((?:elcrec|make) [^`]+)`", page.read_text())})


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory, tiny_params: Callable[[Path], Path]) -> Path:
    """Return a folder as `elcrec run` leaves it, with the logs that pages name."""
    missing = [program for program in RUN if locate(program) is None]
    if missing:
        pytest.skip(f"not on this machine: {', '.join(missing)}")
    folder = tmp_path_factory.mktemp("documented") / "run"
    folder.mkdir()
    tiny = yaml.safe_load(tiny_params(folder).read_text(encoding="utf-8"))
    params = merge(yaml.safe_load((ROOT / "params.yaml").read_text(encoding="utf-8")), tiny)
    (folder / "params.yaml").write_text(yaml.safe_dump(params, sort_keys=False), encoding="utf-8")
    command = [sys.executable, "-m", "elcrec", "run", "--workdir", "runs/sample"]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    (folder / "data").mkdir()
    (folder / "exports").mkdir()
    log = folder / "runs" / "sample" / "raw" / "data.csv"
    shutil.copy(log, folder / "data" / "log.csv")
    pq.write_table(pyarrow.csv.read_csv(log), folder / "data" / "log.parquet")
    with log.open(encoding="utf-8") as lines:
        rows = list(csv.reader(lines))[1 : SOUND + 1]
    with (folder / "data" / "shop.csv").open("w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows(
            [["user_id", "item_id", "clicked_at"], *rows, *(["u0032", "i0026", ""] for _ in range(FAULTY))]
        )
    (folder / "clicks.csv").write_text("user_id,item_id,timestamp\nu0042,i0001,2026-03-01T12:00:00Z\n", "utf-8")
    return folder


@pytest.fixture(scope="module")
def port(run: Path) -> Iterator[int]:
    """Start the server that answers the requests of all pages; what it has shown is in `runs/sample/exposures`."""
    shutil.copytree(run, served := run.parent / "served")
    store, exposures = served / "runs" / "sample" / "store", run / "runs" / "sample" / "exposures"
    installation = Installation(folder=store, inputs=None, features=ROOT / "features")
    with serving(installation, f"exposures.folder={exposures}", "exposures.seconds=1") as server:
        assert server.post("/recommend", {"user_id": "u0042"}).status == 200
        eventually(lambda: any(exposures.rglob("*.parquet")))
        yield server.port


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_block_says_what_it_is(page: Path) -> None:
    """A block of another language is one that nothing would test."""
    assert [str(block) for block in blocks_of(page) if block.language not in LANGUAGES] == []
    assert len(re.findall(r"(?m)^ *```", page.read_text(encoding="utf-8"))) == 2 * len(blocks_of(page))


def pages_that_run() -> list[Path]:
    return sorted({block.page for block in blocks_in("bash", "console", "python")})


@pytest.mark.parametrize("page", pages_that_run(), ids=lambda page: page.name)
def test_what_a_page_tells_you_to_type_runs(page: Path, run: Path, port: int, tmp_path: Path) -> None:
    """From top to bottom, as a reader would."""
    folder = Folder(tmp_path / "checkout", run, port)
    programs = [block.text for block in blocks_of(page) if block.language == "python"]
    wrong: list[str] = []
    for block in blocks_of(page):
        complaints: Iterator[str] = iter(())
        if block.language in {"bash", "console"}:
            complaints = folder.run(block)
        elif block.language == "python" and programs:
            complaints = folder.run_python("\n".join(programs))
            programs = []
        elif block.file:
            folder.write(block)
        wrong += [f"{block}: {each}" for each in complaints]
    assert not wrong, "\n\n".join(wrong)


@pytest.mark.parametrize(
    ("language", "text", "complaint"),
    [
        ("bash", "frobnicate\n", "frobnicate: the documentation may not call it"),
        ("bash", "cat absent.txt\n", "No such file"),
        ("bash", "elcrec serve --prot 8080\n", "unrecognized arguments"),
        ("bash", "elcrec train --set train.epoch=1\n", "train.epoch"),
        ("bash", "elcrec-pipeline schedule training\n", "--name"),
        ("bash", "docker build --target absent .\n", "no target absent"),
        ("bash", "kubectl apply -k deploy/overlays/absent\n", "no deploy/overlays/absent"),
        ("bash", "make absent\n", "No rule to make target"),
        ("bash", "python -m benchmarks.absent\n", "no module benchmarks.absent"),
        ("bash", "for name in 1; do\n", "bash could not read it"),
        ("console", "$ git rev-parse HEAD\nabsent\n", "'absent' was not printed"),
    ],
)
def test_a_block_that_is_wrong_is_found(
    language: str, text: str, complaint: str, run: Path, port: int, tmp_path: Path
) -> None:
    block = Block(ROOT / "docs" / "index.md", 1, language, text)
    assert complaint in "\n".join(Folder(tmp_path / "checkout", run, port).run(block))


@pytest.mark.parametrize("block", blocks_in("yaml"), ids=str)
def test_yaml_on_a_page_is_configuration_that_we_read(block: Block) -> None:
    content = yaml.safe_load(block.text)
    if content.keys() <= set(Config.__struct_fields__):
        parse_config(content)
    elif content.keys() <= set(Platform.__struct_fields__):
        load_platform(ROOT / "pipelines" / "platform.yaml", content)
    else:
        store = yaml.safe_load((ROOT / "features" / "feature_store.yaml").read_text(encoding="utf-8"))
        config = RepoConfig(**merge(store, content))
        assert find_spec("pyspark") is None or config.batch_engine.spark_conf


@pytest.mark.parametrize("block", blocks_in("json"), ids=str)
def test_json_on_a_page_is_what_we_send(block: Block) -> None:
    content = json.loads(block.text)
    assert content.keys() == {"text", "elcrec"}
    assert content["elcrec"].pop("schema_version") == BODY_VERSION
    assert content["elcrec"].keys() == set(Outcome.__struct_fields__)
    assert isinstance(msgspec.convert(content["elcrec"], Outcome).text, str)


@pytest.mark.parametrize("command", spoken_of())
def test_a_command_that_a_sentence_names_exists(command: str) -> None:
    program, *arguments = shlex.split(command)
    if program == "make":
        assert list(complaints_of_make([word for word in arguments if "…" not in word])) == []
    elif len(arguments) == 1:
        assert arguments[0] in PARSERS[program]().format_help().split()
    else:
        assert list(complaints_of_parser(program, arguments)) == []


def test_links_between_pages_lead_somewhere() -> None:
    for page in PAGES:
        for link in re.findall(r"\]\((?!https?:)([^)#]+)\)", page.read_text()):
            assert (page.parent / link).exists(), f"{page.name} links to {link}"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_lines_fit_on_a_screen(page: Path) -> None:
    made_by_script = page.name in {"RESULTS.md", "BENCHMARKS.md"}
    lines = page.read_text(encoding="utf-8").splitlines()
    too_long = [line for line in lines if len(line) > 120 and not (made_by_script and line.startswith("|"))]
    assert too_long == []
