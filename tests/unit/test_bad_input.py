"""Whatever is wrong with the input: one clear line, an exit status that says so, and nothing left behind."""

import hashlib
import json
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from unicodedata import normalize

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from elcrec.cli import main

HEADER = "user_id,item_id,timestamp\n"
GOOD = "".join(f"u{row // 6},i{row % 20},{1_700_000_000 + row}\n" for row in range(300))
FAULTY_SHARE = "share of faulty rows"
Capture = pytest.CaptureFixture[str]


@dataclass(frozen=True)
class Workshop:
    """A folder to run the command line in."""

    folder: Path
    capture: Capture

    def run(self, command: str, *arguments: str) -> tuple[int, str]:
        """Return the exit status and what was written to stderr."""
        self.capture.readouterr()
        status = main([command, "--params", str(self.folder / "params.yaml"), *arguments])
        return status, self.capture.readouterr().err

    def run_validate(self, content: str | bytes, layout: str = "csv", settings: Sequence[str] = ()) -> tuple[int, str]:
        """Fetch a file with this content, then validate it."""
        path = self.folder / f"log.{layout}"
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return self.validate_file(path, layout, settings)

    def validate_file(self, path: Path, layout: str, settings: Sequence[str] = ()) -> tuple[int, str]:
        file = [f"fetch.file.path={path}", f"fetch.file.format={layout}", "fetch.dataset=file"]
        raw = str(self.folder / "raw")
        assert self.run("fetch", *options(file), "--out", raw)[0] == 0
        out = ["--raw", raw, "--out", str(self.out), "--accepted", str(self.folder / "accepted")]
        return self.run("validate", *options(settings), *out)

    @property
    def out(self) -> Path:
        return self.folder / "validated"

    def assert_refused(self, outcome: tuple[int, str], *words: str, evidence: bool = False) -> None:
        """Check the claim of this module; `evidence` is the folder with the report of a failed validation."""
        status, stderr = outcome
        first, *details = stderr.splitlines()
        assert status == 2
        assert first.startswith("elcrec: error: ")
        assert all(word in first for word in words), first
        assert len(first) < 1000
        assert bool(details) == evidence
        assert "Traceback" not in stderr
        assert self.leftovers() == (["validated.failed"] if evidence else [])

    def leftovers(self) -> list[str]:
        inputs = ("params.yaml", "log.", "raw")
        return sorted(path.name for path in self.folder.iterdir() if not path.name.startswith(inputs))


def options(settings: Sequence[str]) -> list[str]:
    return [part for setting in settings for part in ("--set", setting)]


@pytest.fixture
def shop(tmp_path: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch) -> Workshop:
    # What a log was read as is said before it is judged, and is no error.
    monkeypatch.setattr(logging.getLogger("elcrec.data.log"), "disabled", True)
    (tmp_path / "params.yaml").write_text("validate:\n  min_rows: 100\n")
    return Workshop(tmp_path, capsys)


UNREADABLE: dict[str, tuple[str, str | bytes, str]] = {
    "missing column": ("csv", "user_id,item_id,time\nu,i,1\n", "no column 'timestamp'"),
    "empty file": ("csv", b"", "the file is empty"),
    "header only": ("csv", HEADER, "no rows"),
    "column twice": ("csv", "user_id,user_id,item_id,timestamp\nu,u,i,1\n", "twice"),
    "binary garbage as csv": ("csv", bytes(range(256)) * 99, "no column"),
    "binary garbage as parquet": ("parquet", bytes(range(256)) * 99, "not readable as parquet"),
    "binary garbage as benchmark": ("benchmark", b"\xff\xfe\x00" * 999, "not readable as benchmark"),
    "zeros as benchmark": ("benchmark", b"\0" * 999, "not a text file"),
    "latin-1 text": ("csv", (HEADER + "Müller,i,1\n").encode("latin-1"), "line 2 is not UTF-8"),
    "empty parquet": ("parquet", b"", "the file is empty"),
    "blank benchmark": ("benchmark", "\n\n", "no rows"),
    "benchmark user twice": ("benchmark", "u1 a b c\nu1 d\n", "more than one line"),
}


@pytest.mark.parametrize("kind", UNREADABLE)
def test_a_file_that_cannot_be_read_is_refused(shop: Workshop, kind: str) -> None:
    layout, content, word = UNREADABLE[kind]
    shop.assert_refused(shop.run_validate(content, layout), word, f"data.{'txt' if layout == 'benchmark' else layout}")


def test_a_truncated_parquet_file_is_refused(shop: Workshop) -> None:
    path = shop.folder / "log.parquet"
    pq.write_table(pa.table({"user_id": ["u"] * 999, "item_id": ["i"] * 999, "timestamp": range(999)}), path)
    path.write_bytes(path.read_bytes()[:-100])
    shop.assert_refused(shop.validate_file(path, "parquet"), "not readable as parquet")


@pytest.mark.parametrize(
    ("name", "values"), [("user_id", [["u"]] * 9), ("item_id", [1.5] * 9), ("timestamp", [True] * 9)]
)
def test_a_column_of_the_wrong_type_is_refused(shop: Workshop, name: str, values: list[object]) -> None:
    path = shop.folder / "log.parquet"
    columns = {"user_id": ["u"] * 9, "item_id": ["i"] * 9, "timestamp": list(range(9))} | {name: values}
    pq.write_table(pa.table(columns), path)
    shop.assert_refused(shop.validate_file(path, "parquet"), f"column '{name}' has type")


FAILING: dict[str, tuple[str, str]] = {
    "null users": (HEADER + GOOD + ",i1,5\n" * 9, FAULTY_SHARE),
    "null items": (HEADER + GOOD + "u1,,5\n" * 9, FAULTY_SHARE),
    "null times": (HEADER + GOOD + "u1,i1,\n" * 9, FAULTY_SHARE),
    "negative time": (HEADER + GOOD + "u1,i1,-5\n" * 9, FAULTY_SHARE),
    "future time": (HEADER + GOOD + "u1,i1,2999-01-01\n" * 9, FAULTY_SHARE),
    "unreadable time": (HEADER + GOOD.replace(",1", ",noon "), FAULTY_SHARE),
    "duplicate events": (HEADER + GOOD + "u1,i1,5\n" * 9, FAULTY_SHARE),
    "gigantic ids": (HEADER + GOOD + f"{'x' * 500_000},i1,5\n" * 9, FAULTY_SHARE),
    "ragged lines": (HEADER + GOOD + "u1,i1\nu1,i1,1,1\n" * 9, FAULTY_SHARE),
    "one user": (HEADER + "".join(f"u,i{row % 20},{row}\n" for row in range(300)), "users"),
    "one item": (HEADER + "".join(f"u{row // 6},i,{row}\n" for row in range(300)), "items"),
    "few rows": (HEADER + GOOD[:600], "accepted rows"),
    "short histories": (
        HEADER + "".join(f"u{row},i{row % 20},{row}\n" for row in range(300)),
        "interactions per user",
    ),
}


@pytest.mark.parametrize("kind", FAILING)
def test_a_log_that_fails_a_check_is_refused_with_a_table_and_its_evidence(shop: Workshop, kind: str) -> None:
    content, check = FAILING[kind]
    outcome = shop.run_validate(content)
    shop.assert_refused(outcome, "validation failed", check, "validated.failed/validation.html", evidence=True)
    assert all(len(line) < 300 for line in outcome[1].splitlines()[1:])


def test_benchmark_lines_without_items_are_faulty_rows(shop: Workshop) -> None:
    lines = "".join(f"u{user} " + " ".join(f"i{user % 7 + n}" for n in range(9)) + "\n" for user in range(50))
    outcome = shop.run_validate(lines + "".join(f"lonely{n}\n" for n in range(20)), "benchmark")
    shop.assert_refused(outcome, FAULTY_SHARE, evidence=True)


def test_an_unsorted_log_is_refused_only_when_the_order_is_strict(shop: Workshop) -> None:
    content = HEADER + "".join(reversed(GOOD.splitlines(keepends=True)))
    shop.assert_refused(
        shop.run_validate(content, settings=["validate.order=strict"]), "events in time order", evidence=True
    )
    assert shop.run_validate(content)[0] == 0


def test_unicode_ids_work(shop: Workshop) -> None:
    users = [
        "Åsa",
        "李雷",
        "🦊",
        "كتاب",
        "e\u0301",
        "zero\u200bwidth",
        "O'Neil",
        'say ""hi""',
        "a b",
        "-1",
        "nullable",
        "ß",
    ]
    rows = [f'"{users[row % 12]}","商品{row % 20}",{1_700_000_000 + row}\n' for row in range(300)]
    assert shop.run_validate(HEADER + "".join(rows)) == (0, "")
    found = pq.read_table(shop.out / "interactions.parquet")["user_id"].unique().to_pylist()
    assert found == [normalize("NFC", user.replace('""', '"')) for user in users]


def test_a_wrong_md5_is_refused(shop: Workshop) -> None:
    (shop.folder / "log.csv").write_text(HEADER + GOOD)
    settings = [
        "fetch.dataset=file",
        f"fetch.file.path={shop.folder / 'log.csv'}",
        f"fetch.file.md5={'a' * 32}",
    ]
    shop.assert_refused(shop.run("fetch", *options(settings), "--out", str(shop.out)), "md5", "expected " + "a" * 32)


def test_an_absent_file_is_refused(shop: Workshop) -> None:
    settings = options(["fetch.dataset=file", f"fetch.file.path={shop.folder / 'nowhere.csv'}"])
    shop.assert_refused(shop.run("fetch", *settings, "--out", str(shop.out)), "nowhere.csv", "fetch.file.path")


@pytest.mark.parametrize(
    ("setting", "word"),
    [
        ("fetch.speed=5", "speed"),
        ("fetch.dataset=nonsense", "nonsense"),
        ("fetch.synthetic.users=many", "fetch.synthetic.users"),
        ("fetch.synthetic.noise=1.5", "fetch.synthetic.noise"),
        ("fetch.synthetic.intents=9999", "9999 intents"),
        ("validate.order=random", "validate.order"),
        ("sequences.valid_share=0.9", "sequences.valid_share"),
        ("nonsense", "nonsense"),
    ],
)
def test_an_unknown_or_impossible_parameter_is_refused(shop: Workshop, setting: str, word: str) -> None:
    shop.assert_refused(shop.run("fetch", "--set", setting, "--out", str(shop.out)), word)


def blocked(shop: Workshop) -> str:
    (shop.folder / "raw.file").write_text("a regular file")
    return str(shop.folder / "raw.file" / "out")


def small_sample(shop: Workshop) -> tuple[str, str]:
    """Return the folders of a fetched and a validated sample."""
    raw, validated = shop.folder / "raw", shop.folder / "raw.validated"
    settings = options(["fetch.synthetic.users=50", "fetch.synthetic.items=40"])
    assert shop.run("fetch", *settings, "--out", str(raw))[0] == 0
    arguments = ["--raw", str(raw), "--out", str(validated), "--accepted", str(shop.folder / "raw.accepted")]
    assert shop.run("validate", *arguments)[0] == 0
    return str(raw), str(validated)


@pytest.mark.parametrize("stage", ["fetch", "validate", "sequences"])
def test_an_output_that_cannot_be_written_is_refused(shop: Workshop, stage: str) -> None:
    raw, validated = small_sample(shop)
    accepted = str(shop.folder / "raw.accepted")
    inputs = {
        "fetch": [],
        "validate": ["--raw", raw, "--accepted", accepted],
        "sequences": ["--interactions", validated],
    }
    shop.assert_refused(shop.run(stage, *inputs[stage], "--out", blocked(shop)), "cannot write the output")


def test_a_memory_that_cannot_be_written_is_refused(shop: Workshop) -> None:
    raw, _ = small_sample(shop)
    outcome = shop.run("validate", "--raw", raw, "--out", str(shop.out), "--accepted", blocked(shop))
    shop.assert_refused(outcome, "profile.json: cannot be written")


@pytest.mark.parametrize(
    ("stage", "option", "word"),
    [
        ("validate", "--raw", "source.json: no such file"),
        ("sequences", "--interactions", "validation.json: no such file"),
        ("evaluate", "--baseline", "absent: no such folder"),
        ("evaluate", "--truth", "absent: no such folder"),
    ],
)
def test_an_input_folder_that_is_not_there_is_refused(shop: Workshop, stage: str, option: str, word: str) -> None:
    shop.assert_refused(shop.run(stage, option, str(shop.folder / "absent"), "--out", str(shop.out)), word)


def damage_json(folder: Path) -> None:
    (folder / "validation.json").write_text("{")


def damage_parquet(folder: Path) -> None:
    (folder / "interactions.parquet").write_bytes(b"PAR1")


def remove_parquet(folder: Path) -> None:
    (folder / "interactions.parquet").unlink()


def drop_column(folder: Path) -> None:
    table = pq.read_table(folder / "interactions.parquet")
    pq.write_table(table.drop_columns("timestamp"), folder / "interactions.parquet")


@pytest.mark.parametrize("damage", [damage_json, damage_parquet, remove_parquet, drop_column])
def test_sequences_refuses_a_damaged_input(shop: Workshop, damage: Callable[[Path], None]) -> None:
    _, validated = small_sample(shop)
    damage(Path(validated))
    shop.assert_refused(shop.run("sequences", "--interactions", validated, "--out", str(shop.out)), "raw.validated")


def test_sequences_refuses_a_temporal_split_of_a_log_without_times(shop: Workshop) -> None:
    lines = "".join(f"u{user} " + " ".join(f"i{user % 7 + n}" for n in range(9)) + "\n" for user in range(50))
    assert shop.run_validate(lines, "benchmark")[0] == 0
    shop.out.rename(shop.folder / "raw.validated")
    (shop.folder / "accepted").rename(shop.folder / "raw.accepted")
    arguments = ["--interactions", str(shop.folder / "raw.validated"), "--out", str(shop.out)]
    shop.assert_refused(shop.run("sequences", "--set", "sequences.split=temporal", *arguments), "real times")


@pytest.mark.parametrize(
    "source",
    ["{}", "[]", "{", json.dumps({"dataset": "x", "format": "csv", "file": "absent.csv", "md5": "0" * 32})],
)
def test_validate_refuses_a_folder_that_fetch_did_not_write(shop: Workshop, source: str) -> None:
    raw = shop.folder / "raw"
    raw.mkdir()
    (raw / "source.json").write_text(source)
    shop.assert_refused(shop.run("validate", "--raw", str(raw), "--out", str(shop.out)), str(raw))


def test_a_damaged_memory_of_the_last_accepted_log_is_refused(shop: Workshop) -> None:
    raw, _ = small_sample(shop)
    memory = shop.folder / "raw.accepted" / "profile.json"
    memory.write_text("garbage")
    outcome = shop.run("validate", "--raw", raw, "--out", str(shop.out), "--accepted", str(memory.parent))
    shop.assert_refused(outcome, "profile.json")


def test_the_md5_in_the_source_is_of_the_file(shop: Workshop) -> None:
    shop.run_validate(HEADER + GOOD)
    source = json.loads((shop.folder / "raw" / "source.json").read_text())
    data = (shop.folder / "raw" / "data.csv").read_bytes()
    assert source["md5"] == hashlib.md5(data, usedforsecurity=False).hexdigest()
