"""fetch gets exactly the bytes of a revision of a DVC repository, and records the version."""

import os
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from kfp import dsl

from components._dvc import DvcFile, find_version, pull
from components._sections import write_section
from components.fetch import fetch
from elcrec.artifacts import md5_of, read_json
from elcrec.config import FetchConfig, LocalFile
from elcrec.errors import UserError

BEAUTY = "cb03635343187f36526ed4ba48102b53"
ROOT = Path(__file__).parents[3]
REMOTE = Path(os.environ.get("ELCREC_DVC_REMOTE", ROOT.parent / "shared" / "dvc-remote"))

pytestmark = [
    pytest.mark.data,
    pytest.mark.skipif(not REMOTE.is_dir(), reason="no DVC remote: set ELCREC_DVC_REMOTE"),
]


def run(*command: str, cwd: Path) -> str:
    environment = os.environ | {"GIT_CONFIG_GLOBAL": "/dev/null", "DVC_NO_ANALYTICS": "1"}
    done = subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True, check=True)
    return done.stdout.strip()


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A git and DVC repository whose log lies in the remote alone; the tag v1 holds beauty."""
    folder = tmp_path_factory.mktemp("repository")
    dvc = str(Path(sys.executable).with_name("dvc"))
    run("git", "init", "--quiet", cwd=folder)
    run(dvc, "init", "--quiet", cwd=folder)
    run(dvc, "remote", "add", "--default", "shared", str(REMOTE), cwd=folder)
    (folder / "log.txt.dvc").write_text(
        f"outs:\n- md5: {BEAUTY}\n  size: 1090094\n  hash: md5\n  path: log.txt\n", encoding="utf-8"
    )
    (folder / "README").write_text("plain git\n", encoding="utf-8")
    commit(folder, "Track the log")
    run("git", "tag", "v1", cwd=folder)
    (folder / "log.txt.dvc").unlink()
    commit(folder, "Drop it")
    return folder


def commit(folder: Path, message: str) -> None:
    author = ("-c", "user.name=t", "-c", "user.email=t@example.org")
    run("git", "add", "--all", cwd=folder)
    run("git", *author, "commit", "--quiet", "--message", message, cwd=folder)


@pytest.fixture
def wanted(repository: Path) -> DvcFile:
    return find_version(str(repository), "v1", "log.txt", BEAUTY)


def test_the_bytes_of_the_commit_come(wanted: DvcFile, tmp_path: Path) -> None:
    pull(wanted, tmp_path / "log")
    assert md5_of(tmp_path / "log") == BEAUTY


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"revision": "0" * 40}, "DVC cannot get the file"),
        ({"path": "absent.txt"}, "DVC cannot get the file"),
        ({"path": "README"}, "not a file that DVC tracks"),
        ({"md5": "0" * 32}, f"DVC records md5 {BEAUTY}"),
        ({"repository": "/nowhere"}, "DVC cannot get the file"),
    ],
)
def test_anything_else_is_refused_in_one_line(
    wanted: DvcFile, tmp_path: Path, changes: dict[str, str], message: str
) -> None:
    with pytest.raises(UserError, match=message) as raised:
        pull(replace(wanted, **changes), tmp_path / "log")
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize(("revision", "md5"), [("main", BEAUTY), ("0" * 40, ""), ("0" * 7, BEAUTY)])
def test_what_may_move_is_no_version(revision: str, md5: str) -> None:
    with pytest.raises(UserError, match="may move"):
        DvcFile(repository="r", revision=revision, path="log.txt", md5=md5)


def test_a_tampered_remote_is_refused(wanted: DvcFile, repository: Path, tmp_path: Path) -> None:
    clone, remote = tmp_path / "clone", tmp_path / "remote"
    shutil.copytree(repository, clone)
    place = remote / "files" / "md5" / BEAUTY[:2] / BEAUTY[2:]
    place.parent.mkdir(parents=True)
    place.write_text("1 2 3\n", encoding="utf-8")
    run("git", "checkout", "--quiet", "v1", cwd=clone)
    config = (clone / ".dvc" / "config").read_text(encoding="utf-8").replace(str(REMOTE), str(remote))
    (clone / ".dvc" / "config").write_text(config, encoding="utf-8")
    commit(clone, "Point to another remote")
    revision = run("git", "rev-parse", "HEAD", cwd=clone)
    with pytest.raises(UserError, match="md5"):
        pull(replace(wanted, repository=str(clone), revision=revision), tmp_path / "log")


def test_the_component_records_the_provenance(wanted: DvcFile, repository: Path, tmp_path: Path) -> None:
    raw = dsl.Dataset(name="raw", uri=str(tmp_path / "raw"))
    metrics = dsl.Metrics(name="metrics", uri=str(tmp_path / "metrics"))
    config = FetchConfig(file=LocalFile(format="benchmark"))
    fetch.python_func(
        config=write_section(config),
        dvc_repository=wanted.repository,
        dvc_revision=wanted.revision,
        dvc_path="log.txt",
        dvc_md5=BEAUTY,
        raw=raw,
        metrics=metrics,
    )
    provenance = {
        "dvc_repository": str(repository),
        "dvc_revision": run("git", "rev-parse", "v1", cwd=repository),
        "dvc_path": "log.txt",
        "md5": BEAUTY,
    }
    assert provenance.items() <= raw.metadata.items()
    assert provenance.items() <= read_json(tmp_path / "raw" / "source.json").items()
    assert md5_of(tmp_path / "raw" / raw.metadata["file"]) == BEAUTY
