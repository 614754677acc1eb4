"""resolve names the present version of a branch, so that fetch gets a new log when the branch has moved."""

import re
import subprocess
from pathlib import Path

import pytest
from dvc.repo import Repo
from kfp import dsl

from components._sections import write_section
from components.fetch import fetch
from components.resolve import resolve
from elcrec.artifacts import md5_of, read_json
from elcrec.config import FetchConfig, LocalFile
from elcrec.errors import UserError

FIRST, SECOND = "user_id,item_id,timestamp\na,x,1\n", "user_id,item_id,timestamp\na,x,1\na,y,2\n"
MADE = "d41d8cd98f00b204e9800998ecf8427e"

# dvc add, which only these tests call.
pytestmark = pytest.mark.filterwarnings("ignore:_NoneStep.value:DeprecationWarning")


def git(folder: Path, *arguments: str) -> str:
    author = ("-c", "user.name=t", "-c", "user.email=t@example.org")
    done = subprocess.run(("git", *author, *arguments), cwd=folder, capture_output=True, text=True, check=True)
    return done.stdout.strip()


def commit_log(folder: Path, content: str) -> str:
    """Track, push and commit a version of the log; return the commit."""
    (folder / "log.csv").write_text(content, encoding="utf-8")
    with Repo(str(folder)) as repo:
        repo.add(str(folder / "log.csv"))
        repo.push()
    git(folder, "add", "--all")
    git(folder, "commit", "--quiet", "--message", "A log")
    return git(folder, "rev-parse", "HEAD")


@pytest.fixture
def repository(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A git and DVC repository with a log and the output of a stage on its branch main."""
    monkeypatch.setenv("GIT_CONFIG_GLOBAL", "/dev/null")
    monkeypatch.setenv("DVC_NO_ANALYTICS", "1")
    folder = tmp_path / "repository"
    folder.mkdir()
    git(folder, "init", "--quiet", "--initial-branch", "main")
    Repo.init(str(folder)).close()
    remote = f"[core]\n    remote = here\n['remote \"here\"']\n    url = {tmp_path / 'remote'}\n"
    (folder / ".dvc" / "config").write_text(remote, encoding="utf-8")
    (folder / "dvc.yaml").write_text("stages:\n  make:\n    cmd: 'true'\n    outs: [made.csv]\n", encoding="utf-8")
    lock = f"{{path: made.csv, hash: md5, md5: {MADE}, size: 0}}"
    (folder / "dvc.lock").write_text(
        f"schema: '2.0'\nstages:\n  make:\n    cmd: 'true'\n    outs: [{lock}]\n", encoding="utf-8"
    )
    commit_log(folder, FIRST)
    return folder


def resolved(repository: Path | str, revision: str = "main", path: str = "log.csv", md5: str = "") -> tuple[str, str]:
    commit, found, _ = resolve.python_func(
        config="{}", dvc_repository=str(repository), dvc_revision=revision, dvc_path=path, dvc_md5=md5
    )
    return commit, found


def fetched(repository: str, version: tuple[str, str], out: Path) -> Path:
    """Run fetch on a version as the pipelines do; return its folder."""
    commit, md5 = version
    fetch.python_func(
        config=write_section(FetchConfig(file=LocalFile(format="csv"))),
        dvc_repository=repository,
        dvc_revision=commit,
        dvc_path="log.csv",
        dvc_md5=md5,
        raw=dsl.Dataset(name="raw", uri=str(out)),
        metrics=dsl.Metrics(name="metrics", uri=str(out.with_name("metrics"))),
    )
    return out


@pytest.mark.parametrize("address", [str, Path.as_uri], ids=["path", "address"])
def test_a_branch_that_moved_is_another_version_and_its_log_is_fetched(
    address: type[str], repository: Path, tmp_path: Path
) -> None:
    where = address(repository)
    first = resolved(where)
    before = fetched(where, first, tmp_path / "first")
    commit = commit_log(repository, SECOND)
    second = resolved(where)
    after = fetched(where, second, tmp_path / "second")
    assert second[0] == commit != first[0]
    assert second[1] == md5_of(repository / "log.csv") != first[1]
    contents = [(out / read_json(out / "source.json")["file"]).read_text() for out in (before, after)]
    assert contents == [FIRST, SECOND]
    assert read_json(after / "source.json")["dvc_revision"] == commit


def test_an_unchanged_branch_is_the_same_version(repository: Path) -> None:
    assert resolved(repository) == resolved(repository, git(repository, "rev-parse", "HEAD"))


def test_the_output_of_a_stage_is_found_in_the_lock(repository: Path) -> None:
    assert resolved(repository, path="made.csv")[1] == MADE


def test_without_a_repository_there_is_nothing_to_resolve() -> None:
    assert resolved("", "", "") == ("", "")


def test_a_given_md5_must_be_the_one_of_the_revision(repository: Path) -> None:
    recorded = md5_of(repository / "log.csv")
    assert resolved(repository, md5=recorded)[1] == recorded
    with pytest.raises(UserError, match=f"DVC records md5 {recorded}, wanted {'0' * 32}; correct dvc_revision"):
        resolved(repository, md5="0" * 32)


@pytest.mark.parametrize(
    ("revision", "path", "message"),
    [
        ("", "log.csv", "dvc_repository needs dvc_revision and dvc_path"),
        ("main", "", "dvc_repository needs dvc_revision and dvc_path"),
        ("absent", "log.csv", "DVC cannot get the file"),
        ("main", "absent.csv", "DVC cannot get the file"),
        ("main", "dvc.yaml", "not a file that DVC tracks"),
    ],
)
def test_a_missing_file_is_one_clear_line(repository: Path, revision: str, path: str, message: str) -> None:
    with pytest.raises(UserError, match=message) as raised:
        resolved(repository, revision, path)
    assert re.search(re.escape(str(repository)), str(raised.value))
    assert "\n" not in str(raised.value)
