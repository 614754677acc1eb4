"""Replay of the champion's logged answers: what it could have shown, and what a challenger would have shown.

An answer is replayed from the earlier events of its user. It counts only if the replayed champion gives every shown
item the propensity in the log: then the replay used the same information as the server.

Axes: `A` answers, `N` shown items, `P` places, `C` candidates, `G` groups of items.
"""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as ds
import pyarrow.parquet as pq

from elcrec.data.dataset import load_item_ids
from elcrec.data.evenly import evenly_spread
from elcrec.data.user_keys import user_key
from elcrec.errors import UserError
from elcrec.evaluation.places import Places
from elcrec.ranking.chances import Chances
from elcrec.serving.catalogue import Catalogue
from elcrec.serving.recommender import Query, Recommender

_COLUMNS = ["answer_id", "time", "user_key", "item_id", "propensity", "events"]
_BLOCK = 256
_RANKS = np.array([5, 10, 20, 50])
"""Upper limits of the groups of items by the rank that each model gives them; the last group lies beyond."""
_BANDS = len(_RANKS) + 1
GROUPS = _BANDS * (_BANDS + 1)
"""The challenger has one more group: items that are not among its candidates."""


class Logged(NamedTuple):
    """An answer of the champion, and the events that followed."""

    user_key: str
    moment: datetime
    item_ids: list[str]
    propensities: list[float]
    clicked: list[bool]


class Context(NamedTuple):
    """The events of a user: raw item ids in order of time, and their times in microseconds."""

    number: int
    item_ids: list[str]
    micros: npt.NDArray[np.int64]

    def before(self, moment: datetime) -> list[str]:
        """Return the user's events before a moment."""
        return self.item_ids[: np.searchsorted(self.micros, _micros(moment), side="left")]


class Replayed(NamedTuple):
    """The replayed answers, `None` if there are none, and the numbers of answers left out, by reason."""

    places: Places | None
    left_out: Counter[str]


def read_logged(path: Path, digest: str, since: datetime, most: int) -> tuple[list[Logged], Counter[str]]:
    """Return answers of a bundle after a moment, an even sample if there are many, and what was left out.

    Args:
        path: the file attributed.parquet.
        digest: digest of the bundle.
        since: answers before it are left out.
        most: largest number of answers.

    Raises:
        UserError: the file is not an output of `elcrec exposures`.
    """
    try:
        source = ds.dataset(path)
        wanted = (pc.field("digest") == digest) & (pc.field("time") > pa.scalar(since, pa.timestamp("us", tz="UTC")))
        first = pc.field("position") == 1
        counts = {
            "all": source.count_rows(filter=first),
            "own": source.count_rows(filter=first & (pc.field("digest") == digest)),
        }
        table = source.to_table(columns=_COLUMNS, filter=wanted)
    except (OSError, pa.ArrowException) as error:
        fix = "run `elcrec exposures` again"
        raise UserError(f"not readable as attributed exposures ({error})", where=path, fix=fix) from error
    starts = _starts(table["answer_id"])
    left_out = Counter({"of another bundle": counts["all"] - counts["own"]})
    left_out["from before the end of the training log"] = counts["own"] - (len(starts) - 1)
    chosen = evenly_spread(len(starts) - 1, most)
    left_out["more than are replayed"] = len(starts) - 1 - len(chosen)
    return [_logged(table, starts, row) for row in chosen], left_out


def _starts(answers: pa.ChunkedArray) -> npt.NDArray[np.int64]:
    """Return the index of each answer's first row, and the end; the rows of an answer are adjacent."""
    codes = np.asarray(answers.combine_chunks().dictionary_encode().indices) if len(answers) else np.empty(0, np.int64)
    return np.append(np.flatnonzero(np.append([True], codes[1:] != codes[:-1])), len(codes)) if len(codes) else _NOTHING


_NOTHING = np.zeros(1, np.int64)


def _logged(table: pa.Table, starts: npt.NDArray[np.int64], row: int) -> Logged:
    one = table.slice(starts[row], starts[row + 1] - starts[row])
    return Logged(
        user_key=one["user_key"][0].as_py(),
        moment=one["time"][0].as_py(),
        item_ids=one["item_id"].to_pylist(),
        propensities=one["propensity"].to_pylist(),
        clicked=[events > 0 for events in one["events"].to_pylist()],
    )


def read_contexts(sequences: Path, keys: set[str], salt: str) -> dict[str, Context]:
    """Return the events of some users in the log, by the users' keys.

    Raises:
        UserError: the folder is not the output of the sequences stage.
    """
    path, found = sequences / "sequences.parquet", dict[str, Context]()
    try:
        with pq.ParquetFile(path) as file:
            ids = ["", *_item_ids(sequences)]
            for batch in file.iter_batches(columns=["user_id", "items", "timestamps"]):
                for row, user_id in enumerate(batch["user_id"].to_pylist()):
                    key = user_key(user_id, salt)
                    if key in keys:
                        items = [ids[item] for item in batch["items"][row].as_py()]
                        times = np.asarray(batch["timestamps"][row].values.cast(pa.int64()))
                        found[key] = Context(len(found), items, times)
    except (OSError, pa.ArrowException) as error:
        raise UserError(f"not readable ({error})", where=path, fix="run the sequences stage again") from error
    return found


def _item_ids(sequences: Path) -> list[str]:
    return load_item_ids(sequences, pq.read_metadata(sequences / "items.parquet").num_rows)


def replay(
    logged: Sequence[Logged], contexts: Mapping[str, Context], champion: Recommender, challenger: Recommender
) -> Replayed:
    """Replay answers with both models.

    Args:
        logged: answers of the champion.
        contexts: the events of their users in the log.
        champion: the bundle that gave the answers.
        challenger: the bundle to compare.
    """
    left_out, kept = Counter[str](), list[Answer]()
    known = [one for one in logged if one.user_key in contexts]
    left_out["of users that the log does not know"] = len(logged) - len(known)
    for start in range(0, len(known), _BLOCK):
        block = known[start : start + _BLOCK]
        queries = [Query(history=contexts[one.user_key].before(one.moment), k=len(one.item_ids)) for one in block]
        for one, first, second in zip(block, champion.chances(queries), challenger.chances(queries), strict=True):
            answer = match(one, contexts[one.user_key].number, by_id(first, champion.catalogue))
            if answer is None:
                left_out["not as the champion would answer from the log"] += 1
            else:
                kept.append(answer.against(by_id(second, challenger.catalogue)))
    return Replayed(places_of(kept) if kept else None, left_out)


class Candidates(NamedTuple):
    """The candidates of one answer: position in the ranking by raw id, and chances [P, C]."""

    ranks: dict[str, int]
    chance_PC: npt.NDArray[np.float64]

    def chances(self, item_id: str) -> npt.NDArray[np.float64]:
        """Return the chance of an item to be drawn for each place, [P]."""
        rank = self.ranks.get(item_id)
        chances: npt.NDArray[np.float64] = np.zeros(len(self.chance_PC)) if rank is None else self.chance_PC[:, rank]
        return chances


class Answer(NamedTuple):
    """An answer with the candidates of both models."""

    logged: Logged
    user: int
    champion: Candidates
    challenger: Candidates | None = None

    def against(self, challenger: Candidates) -> "Answer":
        """Return the answer with the challenger's candidates."""
        return self._replace(challenger=challenger)


def by_id(chances: Chances, catalogue: Catalogue) -> Candidates:
    """Return candidates by their raw ids, which all models share."""
    ranks = {catalogue.ids[item]: rank for rank, item in enumerate(chances.items_C.tolist())}
    return Candidates(ranks, chances.chance_PC)


def match(logged: Logged, user: int, champion: Candidates) -> Answer | None:
    """Return the answer if the replayed champion gives the shown items the logged chances, else `None`."""
    if len(champion.chance_PC) != len(logged.item_ids):
        return None
    found = [champion.chances(item)[place] for place, item in enumerate(logged.item_ids)]
    return Answer(logged, user, champion) if np.allclose(found, logged.propensities, rtol=1e-6, atol=0) else None


def places_of(answers: Sequence[Answer]) -> Places:
    """Return answers as arrays; each must have the challenger's candidates."""
    size = max(len(one.logged.item_ids) for one in answers)
    users = {user: number for number, user in enumerate(sorted({one.user for one in answers}))}
    shown = [(one, place, item) for one in answers for place, item in enumerate(one.logged.item_ids)]
    lengths = [len(one.logged.item_ids) for one in answers]
    best = np.concatenate([one.champion.chance_PC.max(1) for one in answers])
    return Places(
        clicked=np.array([click for one in answers for click in one.logged.clicked], np.float64),
        place=np.array([place for _, place, _ in shown]),
        explored=np.array([share for one in answers for share in one.logged.propensities]) < best,
        answer=np.repeat(np.arange(len(answers)), lengths),
        group=np.array([_group(one, item) for one, _, item in shown]),
        logged_NP=_rows((one.champion.chances(item) for one, _, item in shown), size, len(shown)),
        target_NP=_rows((_challenger_of(one).chances(item) for one, _, item in shown), size, len(shown)),
        user=np.array([users[one.user] for one in answers]),
        mass_AGP=_masses(answers, size),
    )


def _challenger_of(answer: Answer) -> Candidates:
    assert answer.challenger is not None
    return answer.challenger


def _rows(rows: Iterator[npt.NDArray[np.float64]], size: int, count: int) -> npt.NDArray[np.float64]:
    found = np.zeros((count, size))
    for place, row in enumerate(rows):
        found[place, : len(row)] = row
    return found


def _masses(answers: Sequence[Answer], size: int) -> npt.NDArray[np.float64]:
    """Return the part of the challenger's answers that the champion could have shown, by group and place, [A, G, P]."""
    mass_AGP = np.zeros((len(answers), GROUPS, size))
    for row, one in enumerate(answers):
        other = _challenger_of(one)
        possible_C = one.champion.chance_PC.max(0) > 0
        for item, rank in other.ranks.items():
            own = one.champion.ranks.get(item)
            if own is not None and possible_C[own] and other.chance_PC[:, rank].any():
                mass_AGP[row, _group(one, item), : len(other.chance_PC)] += other.chance_PC[:, rank]
    return mass_AGP


def _group(answer: Answer, item_id: str) -> int:
    own, other = answer.champion.ranks[item_id], _challenger_of(answer).ranks.get(item_id)
    band = _BANDS if other is None else int(np.searchsorted(_RANKS, other, side="right"))
    return int(np.searchsorted(_RANKS, own, side="right")) * (_BANDS + 1) + band


def _micros(moment: datetime) -> int:
    return int(np.datetime64(moment.replace(tzinfo=None), "us").astype(np.int64))
