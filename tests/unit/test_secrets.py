"""Passwords and tokens of settings stand in no message, log, artifact or provenance."""

import logging
import re
import sys
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import pytest

from components import _outcome
from components._artifacts import describe
from components._dvc import DvcFile, provenance_of
from elcrec import cli
from elcrec.config import FetchConfig, SyntheticConfig
from elcrec.errors import UserError
from elcrec.masking import mask
from elcrec.stages.fetch import fetch
from tests.support.push_inputs import make_inputs
from tests.support.servers import free_port

PLANTED = [f"s3cr3t{number:02}" for number in range(1, 13)]
Capture = pytest.CaptureFixture[str]


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("https://ann:s3cr3t@host/log.csv?x=1", "https://***@host/log.csv?x=1"),
        ("https://s3cr3t@github.com/a/b.git", "https://***@github.com/a/b.git"),
        ("redis://:s3cr3t@host:6379/0 is down", "redis://***@host:6379/0 is down"),
        ("host:6379,password=s3cr3t,ssl=true", "host:6379,password=***,ssl=true"),
        ('host:6379,password="s3cr3t"', 'host:6379,password="***"'),
        ("https://h/a?X-Amz-Signature=s3cr3t&part=2", "https://h/a?X-Amz-Signature=***&part=2"),
        ("https://h/a?sv=1&sig=s3cr3t", "https://h/a?sv=1&sig=***"),
        ("{'aws_secret_access_key': 's3cr3t'}", "{'aws_secret_access_key': '***'}"),
        ("Authorization: Bearer s3cr3ts3cr3t", "Authorization: Bearer ***"),
    ],
)
def test_secrets_in_an_address_are_masked(text: str, shown: str) -> None:
    assert mask(text) == shown


@pytest.mark.parametrize(
    "text",
    [
        "https://host/a/b@v1.csv",
        "s3://bucket/key/log.parquet",
        "user ann@example.org",
        "next token expected",
        "num_heads=3, key=4",
    ],
)
def test_other_text_stays_as_it_is(text: str) -> None:
    assert mask(text) == text


class SilentHandler(SimpleHTTPRequestHandler):
    """Logs no request: those of this server would hold what is planted."""

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def site(tmp_path: Path) -> Iterator[str]:
    """A web server with a log, as `host:port`."""
    folder = tmp_path / "site"
    folder.mkdir()
    lines = [f"u{user} " + " ".join(f"i{user % 7 + step}" for step in range(9)) for user in range(50)]
    (folder / "log.txt").write_text("\n".join(lines))
    handler = partial(SilentHandler, directory=str(folder))
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        yield f"127.0.0.1:{server.server_port}"
        server.shutdown()


def fetch_options(address: str, out: Path) -> list[str]:
    settings = ["fetch.dataset=file", f"fetch.file.path={address}", "fetch.file.format=benchmark"]
    return ["fetch", *(part for setting in settings for part in ("--set", setting)), "--out", str(out)]


class Artifact:
    """What a component writes its provenance on."""

    def __init__(self, path: Path) -> None:
        self.path, self.metadata = str(path), dict[str, Any]()


def test_twelve_planted_secrets_are_found_nowhere(
    site: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capture, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    one, two, three, four, five, six, seven, eight, nine, ten, eleven, twelve = PLANTED
    dead, work = f"127.0.0.1:{free_port()}", tmp_path / "work"
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    monkeypatch.chdir(Path(__file__).parents[2])

    # A log that is fetched by an address with a token, and one that is not there.
    assert cli.main(fetch_options(f"http://{site}/log.txt?token={one}", work / "raw")) == 0
    assert cli.main(fetch_options(f"http://ann:{two}@{dead}/log.txt?sig={three}", work / "none")) == 2
    source = {"url": f"https://ann:{four}@{dead}/log.txt", "md5": "0" * 32}
    preset = tmp_path / "preset.yaml"
    preset.write_text(f"fetch: {{dataset: shop, sources: {{shop: {source}}}}}")
    assert cli.main(["fetch", "--preset", str(preset), "--out", str(work / "none")]) == 2

    # The servers of a store, none of which answers.
    inputs, store = make_inputs(tmp_path / "inputs"), ["--store", str(work / "store")]
    folders = ["--model", inputs.model, "--sequences", inputs.sequences, "--evaluation", inputs.evaluation]
    command = ["push", *map(str, folders), *store, "--out", str(work / "push")]
    with monkeypatch.context() as patch:
        patch.setenv("MLFLOW_TRACKING_URI", f"http://ann:{five}@{dead}")
        assert cli.main(command) == 2
    with monkeypatch.context() as patch:
        patch.setenv("REDIS", f"redis://:{six}@{dead}/0")
        assert cli.main(command) == 2
    with monkeypatch.context() as patch:
        patch.setenv("REDIS", f"{dead},password={seven}")
        patch.setenv("FEAST_REGISTRY", f"postgresql://ann:{eight}@{dead}/feast")
        assert cli.main(command) == 2

    # Provenance that a component records, and the webhook.
    (work / "page.html").write_text("")
    artifact = Artifact(work / "page.html")
    repository = f"https://{nine}@{dead}/shop.git"
    describe(artifact, config=f'{{"url": "https://ann:{ten}@host/log"}}', dvc_repository=repository)
    dvc = provenance_of(DvcFile(repository=repository, revision="a" * 40, path="log.csv", md5="b" * 32))
    fetch(FetchConfig(synthetic=SyntheticConfig(users=20, items=20)), work / "pulled", provenance=dvc)
    monkeypatch.setattr(_outcome, "_WAITS", ())
    outcome = _outcome.Outcome(outcome="failed", pipeline="training", run="1")
    _outcome.notify(f"http://{dead}/hook?token={eleven}", outcome)
    logging.getLogger("anybody").error("cannot reach %s", f"amqp://ann:{twelve}@{dead}")

    said = [*capsys.readouterr(), caplog.text, repr(artifact.metadata), str(UserError("lost", where=repository))]
    files = [path for folder in (work, tmp_path / "inputs") for path in folder.rglob("*") if path.is_file()]
    assert len(files) > 10
    found = [secret for secret in PLANTED for text in said if secret in text]
    found += [f"{secret} in {path}" for path in files for secret in PLANTED if secret.encode() in path.read_bytes()]
    assert found == []


def test_a_traceback_is_masked_too(capsys: Capture) -> None:
    error = RuntimeError("no answer from https://ann:s3cr3t@host")
    sys.excepthook(RuntimeError, error, None)
    shown = capsys.readouterr().err
    assert "RuntimeError: no answer from https://***@host" in shown
    assert not re.search("s3cr3t", shown)
