import threading
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from elcrec.artifacts import md5_of, read_json
from elcrec.config import FetchConfig, LocalFile, RemoteFile, SyntheticConfig, load_config
from elcrec.errors import UserError
from elcrec.stages.fetch import fetch

ROOT = Path(__file__).parents[3]
CONTENT = b"u1 a b c\nu2 b c\n"


class QuietHandler(SimpleHTTPRequestHandler):
    def log_message(self, *arguments: object) -> None:
        pass

    def do_GET(self) -> None:
        if self.path == "/torn.txt":
            self.send_response(200)
            self.send_header("Content-Length", "1000")
            self.end_headers()
            self.wfile.write(b"u1 a")
        else:
            super().do_GET()


@pytest.fixture
def site(tmp_path: Path) -> Iterator[str]:
    """A web server that publishes log.txt and a torn.txt that breaks off."""
    folder = tmp_path / "site"
    folder.mkdir()
    (folder / "log.txt").write_bytes(CONTENT)
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(QuietHandler, directory=str(folder))) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


@pytest.fixture
def md5(tmp_path: Path) -> str:
    path = tmp_path / "content"
    path.write_bytes(CONTENT)
    return md5_of(path)


def public(url: str, md5: str, **more: str) -> FetchConfig:
    return FetchConfig(dataset="toy", sources={"toy": RemoteFile(url=url, md5=md5, **more)})  # type: ignore[arg-type]


def nothing_left(tmp_path: Path) -> bool:
    return not [path for path in tmp_path.iterdir() if "raw" in path.name]


def test_the_sample_comes_with_its_truth_and_is_the_same_every_time(tmp_path: Path) -> None:
    config = FetchConfig(synthetic=SyntheticConfig(users=50, items=30, intents=3))
    fetch(config, tmp_path / "one")
    fetch(config, tmp_path / "two")
    names = sorted(path.name for path in (tmp_path / "one").iterdir())
    assert names == ["checksums.json", "data.csv", "source.json", "truth_items.parquet", "truth_users.parquet"]
    for name in names:
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "two" / name).read_bytes()
    items, users = (pq.read_schema(tmp_path / "one" / f"truth_{name}.parquet") for name in ("items", "users"))
    assert str(items.field("intent").type) == "int32"
    assert users.field("intents").type.value_type == pa.int32()


def test_a_url_is_downloaded_and_described(tmp_path: Path, site: str, md5: str) -> None:
    fetch(public(f"{site}/log.txt", md5), tmp_path / "raw")
    assert (tmp_path / "raw" / "data.txt").read_bytes() == CONTENT
    assert read_json(tmp_path / "raw" / "source.json") == {
        "schema_version": 1,
        "dataset": "toy",
        "format": "benchmark",
        "file": "data.txt",
        "md5": md5,
        "origin": f"{site}/log.txt",
    }


def test_the_mirror_is_asked_before_the_url_and_gives_the_same_folder(tmp_path: Path, site: str, md5: str) -> None:
    fetch(public(f"{site}/log.txt", md5), tmp_path / "raw")
    mirror = tmp_path / "mirror"
    mirror.mkdir()
    (mirror / "toy.txt").write_bytes(CONTENT)
    (tmp_path / "site" / "log.txt").unlink()
    fetch(public(f"{site}/log.txt", md5), tmp_path / "raw2", mirror=mirror)
    for name in ("data.txt", "source.json"):
        assert (tmp_path / "raw" / name).read_bytes() == (tmp_path / "raw2" / name).read_bytes()


def test_a_mirror_without_the_file_falls_back_to_the_url(tmp_path: Path, site: str, md5: str) -> None:
    fetch(public(f"{site}/log.txt", md5), tmp_path / "raw", mirror=tmp_path / "absent")
    assert (tmp_path / "raw" / "data.txt").read_bytes() == CONTENT


@pytest.mark.parametrize("by_mirror", [True, False])
def test_a_wrong_md5_is_fatal_whichever_way_the_file_came(tmp_path: Path, site: str, by_mirror: bool) -> None:
    mirror = tmp_path / "site" if by_mirror else None
    config = public(f"{site}/log.txt", "0" * 32, mirror_name="log.txt")
    with pytest.raises(UserError, match=r"md5 is .* expected 0000"):
        fetch(config, tmp_path / "raw", mirror=mirror)
    assert nothing_left(tmp_path)


@pytest.mark.parametrize(
    ("path", "reason"),
    [("/absent.txt", "404"), ("/torn.txt", r"download failed \(IncompleteRead")],
    ids=["404", "torn"],
)
def test_a_failed_download_is_one_line_and_leaves_nothing(tmp_path: Path, site: str, path: str, reason: str) -> None:
    with pytest.raises(UserError, match=reason):
        fetch(public(f"{site}{path}", "0" * 32), tmp_path / "raw")
    assert nothing_left(tmp_path)


@pytest.mark.parametrize("url", ["http://127.0.0.1:1/log.txt", "file:///etc/hostname", "ftp://x/y.txt", "nonsense"])
def test_an_unreachable_or_odd_url_is_refused(tmp_path: Path, url: str) -> None:
    with pytest.raises(UserError, match=r"download failed|only http"):
        fetch(public(url, "0" * 32), tmp_path / "raw")
    assert nothing_left(tmp_path)


def test_your_own_file_is_copied_with_its_provenance(tmp_path: Path, md5: str) -> None:
    file = LocalFile(path=str(tmp_path / "content"), md5=md5, format="benchmark")
    provenance = {"dvc_repository": "https://example.org/repo", "dvc_revision": "abc", "dvc_path": "data/log"}
    fetch(FetchConfig(dataset="file", file=file), tmp_path / "raw", provenance=provenance)
    source = read_json(tmp_path / "raw" / "source.json")
    assert source["origin"] == file.path
    assert {key: source[key] for key in provenance} == provenance


@pytest.mark.data
@pytest.mark.parametrize("name", ["beauty", "sports", "toys", "yelp"])
def test_the_benchmark_sets_of_the_parameters_come_from_the_mirror(tmp_path: Path, mirror: Path, name: str) -> None:
    config = load_config(ROOT / "params.yaml", overrides=[f"fetch.dataset={name}"]).fetch
    assert fetch(config, tmp_path / "raw", mirror=mirror)["md5"] == config.sources[name].md5
