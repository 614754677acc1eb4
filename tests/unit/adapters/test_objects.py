"""A log in a bucket, on the web or on a claim is fetched at the resolved version, and only if it has changed."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from kfp import dsl

from components._sections import read_section, write_section
from components.fetch import fetch
from components.resolve import resolve
from elcrec.adapters.objects import download, find_version, pinned
from elcrec.artifacts import read_json
from elcrec.config import FetchConfig, LocalFile
from elcrec.errors import UserError
from tests.support.object_stores import google_server, s3_server, web_server

FIRST, SECOND = b"user_id,item_id,timestamp\na,x,1\n", b"user_id,item_id,timestamp\na,x,1\na,y,2\n"
NO_DVC = dict.fromkeys(("dvc_repository", "dvc_revision", "dvc_path", "dvc_md5"), "")


@dataclass
class Store:
    """A place that a log is put to."""

    address: str
    put: Callable[[bytes], object]
    absent: str


@pytest.fixture(scope="module", params=["s3", "gs", "https", "claim"])
def store(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Store]:
    folder = tmp_path_factory.mktemp("store")
    with pytest.MonkeyPatch.context() as patch:
        if request.param == "s3":
            with s3_server(patch) as client:
                client.create_bucket(Bucket="logs")
                key = "day/log #1.csv"
                yield Store(
                    f"s3://logs/{key}", lambda b: client.put_object(Bucket="logs", Key=key, Body=b), "s3://logs/no"
                )
        elif request.param == "gs":
            with google_server(patch) as files:
                yield Store(
                    "gs://logs/day/log.csv", lambda b: files.contents.update({"/logs/day/log.csv": b}), "gs://no/x"
                )
        elif request.param == "https":
            with web_server(folder, patch) as files:
                put = lambda b: files.contents.update({"/log.csv": b})  # noqa: E731
                yield Store(f"{files.address}/log.csv?signature=s3cr3t", put, f"{files.address}/no?signature=s3cr3t")
        else:
            yield Store(str(folder / "log.csv"), (folder / "log.csv").write_bytes, str(folder / "no.csv"))


def section_of(address: str) -> str:
    return write_section(FetchConfig(dataset="file", file=LocalFile(path=address, format="csv")))


def resolved(section: str) -> str:
    config: str = resolve.python_func(config=section, **NO_DVC)[2]
    return config


def fetched(config: str, out: Path) -> dsl.Dataset:
    raw = dsl.Dataset(name="raw", uri=str(out))
    fetch.python_func(config=config, **NO_DVC, raw=raw, metrics=dsl.Metrics(name="m", uri=str(out.with_name("m"))))
    return raw


def test_the_cache_key_of_fetch_changes_with_the_file_and_only_then(store: Store, tmp_path: Path) -> None:
    store.put(FIRST)
    first = resolved(section_of(store.address))
    assert resolved(section_of(store.address)) == first
    before = fetched(first, tmp_path / "first")
    store.put(SECOND)
    second = resolved(section_of(store.address))
    assert second != first
    after = fetched(second, tmp_path / "second")
    assert [Path(raw.path, "data.csv").read_bytes() for raw in (before, after)] == [FIRST, SECOND]


def test_a_file_that_was_replaced_after_it_was_resolved_is_refused(store: Store, tmp_path: Path) -> None:
    store.put(FIRST)
    config = resolved(section_of(store.address))
    store.put(SECOND)
    with pytest.raises(
        UserError, match=r"no longer has version .*; the file was replaced|md5 is .* expected"
    ) as raised:
        fetched(config, tmp_path / "raw")
    assert "\n" not in str(raised.value)
    assert not (tmp_path / "raw").exists()


def test_a_file_that_is_not_there_is_one_clear_line(store: Store) -> None:
    store.put(FIRST)
    with pytest.raises(UserError, match=r"the file does not exist|cannot be read \(No such file") as raised:
        resolved(section_of(store.absent))
    assert store.absent.partition("?")[0] in str(raised.value)
    assert "s3cr3t" not in str(raised.value)


def test_the_artifact_names_the_object_and_its_version(store: Store, tmp_path: Path) -> None:
    store.put(FIRST)
    config = resolved(section_of(store.address))
    raw = fetched(config, tmp_path / "raw")
    file = read_section("fetch", config).file
    source = read_json(tmp_path / "raw" / "source.json")
    if not file.version:
        assert file.md5 == source["md5"]
        return
    origin = {"data_location": store.address.partition("?")[0], "data_version": file.version}
    assert origin.items() <= source.items()
    assert origin.items() <= raw.metadata.items()
    assert source["origin"] == origin["data_location"]


def test_a_missing_permission_is_distinguished_from_a_missing_file(monkeypatch: pytest.MonkeyPatch) -> None:
    with google_server(monkeypatch) as files:
        files.contents["/logs/x"] = FIRST
        files.forbidden.add("/logs/x")
        with pytest.raises(UserError, match="gs://logs/x: no permission to read it; check the address, and"):
            find_version("gs://logs/x")


def test_a_file_that_changes_while_it_is_read_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with web_server(tmp_path, monkeypatch) as files:
        address = f"{files.address}/log.csv"
        files.contents["/log.csv"] = FIRST
        version = find_version(address)
        files.during = lambda: files.contents.update({"/log.csv": SECOND})
        with pytest.raises(UserError, match="no longer has version"):
            download(address, version, tmp_path / "log")


def test_a_server_without_versions_needs_an_md5(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with web_server(tmp_path, monkeypatch) as files:
        files.contents["/log.csv"] = FIRST
        files.unversioned.add("/log.csv")
        with pytest.raises(UserError, match=r"gives no version .* give its md5"):
            resolved(section_of(f"{files.address}/log.csv"))


def test_a_version_or_an_md5_that_is_given_is_taken() -> None:
    for file in (LocalFile(path="s3://b/k", version='"1"'), LocalFile(path="absent", md5="0" * 32)):
        section = FetchConfig(dataset="file", file=file)
        assert pinned(section) == section


@pytest.mark.parametrize(
    ("address", "message"),
    [
        ("s3://logs", "not a bucket and a file in it; write s3://BUCKET/PATH"),
        ("https://me:secret@example.org/log.csv", "a password would be visible"),
    ],
)
def test_an_invalid_address_is_refused_before_any_request(address: str, message: str) -> None:
    with pytest.raises(UserError, match=message) as raised:
        find_version(address)
    assert "secret" not in str(raised.value)
