"""A counterfactual estimate of a challenger on the champion's log: read, replay, estimate, conclude."""

from collections import Counter
from datetime import UTC, datetime
from pathlib import Path

from elcrec.artifacts import read_json
from elcrec.config import CounterfactualConfig
from elcrec.errors import UserError
from elcrec.evaluation.places import Estimates, Places, estimate
from elcrec.monitoring.attributed import ATTRIBUTED_FILE
from elcrec.monitoring.replay import read_contexts, read_logged, replay
from elcrec.serving.counterfactual import OnTheLog
from elcrec.serving.ports import RegisteredModel
from elcrec.serving.recommender import Recommender


def challenge(
    config: CounterfactualConfig, champion: RegisteredModel, challenger: Path, sequences: Path, *, salt: str
) -> OnTheLog:
    """Estimate what the challenger would have earned in the champion's place.

    Only answers after the end of the training log count: the challenger may have learned from events after earlier
    ones.

    Args:
        config: the section `push.gate.counterfactual`.
        champion: the version that gave the answers.
        challenger: a bundle folder.
        sequences: sequences of the log on which the challenger was trained.
        salt: salt of the users' keys.

    Raises:
        UserError: an input is invalid, or the challenger was not trained on a temporal split.
    """
    assert config.attributed is not None
    try:
        first = Recommender.load(champion.bundle)
    except UserError as error:
        return _nothing(champion, f"the champion's bundle cannot be loaded ({error})")
    if not first.rules.exploration:
        return _nothing(champion, "the champion does not explore, so its log has no propensities below 1")
    path, since = Path(config.attributed) / ATTRIBUTED_FILE, _end_of_training(sequences)
    logged, left_out = read_logged(path, first.manifest.digest, since, config.answers)
    contexts = read_contexts(sequences, {one.user_key for one in logged if one.user_key is not None}, salt)
    found = replay(logged, contexts, first, Recommender.load(challenger))
    left_out += found.left_out
    if found.places is None:
        return _nothing(champion, "no answer of the champion can be replayed", left_out)
    return _estimated(config, champion, found.places, left_out)


def _end_of_training(sequences: Path) -> datetime:
    """Return the time of the last event used to train a model of these sequences or to choose its epoch.

    Raises:
        UserError: the split is not by time, so everything up to the newest event may have been used.
    """
    cut = read_json(sequences / "split.json").get("test_cut")
    if not isinstance(cut, str):
        what = "push.gate.counterfactual needs answers that the challenger was not trained on; this split has no end"
        raise UserError(what, where=sequences, fix="set sequences.split=temporal")
    return datetime.fromisoformat(cut.removesuffix("Z")).replace(tzinfo=UTC)


def _nothing(champion: RegisteredModel, problem: str, left_out: Counter[str] | None = None) -> OnTheLog:
    return OnTheLog(champion=champion.version, problem=problem, left_out=dict(left_out or {}))


def _estimated(
    config: CounterfactualConfig, champion: RegisteredModel, places: Places, left_out: Counter[str]
) -> OnTheLog:
    shown, users = len(places.clicked), len(set(places.user.tolist()))
    if not places.target_NP.any():
        return _nothing(champion, "the challenger would have shown none of the items that were shown", left_out)
    estimates = estimate(places, confidence=config.confidence)
    return OnTheLog(
        champion=champion.version,
        answers=len(places.user),
        users=users,
        shown=shown,
        left_out=dict(left_out),
        estimates=estimates,
        problem=_problem(config, estimates, shown),
    )


def _problem(config: CounterfactualConfig, found: Estimates, shown: int) -> str | None:
    """Return why nothing can be concluded from the estimates."""
    if found.effective < config.least_effective:
        few = f"{shown:,} shown items tell as much as {found.effective:,.0f} of the challenger's"
        asked = f"push.gate.counterfactual.least_effective ({config.least_effective:,})"
        return f"{few}, fewer than {asked}; log for a longer time, or explore more"
    if found.reached < config.least_reached:
        missed = f"the champion could have shown only {found.reached:.1%} of what the challenger shows"
        asked = f"push.gate.counterfactual.least_reached ({config.least_reached:.1%})"
        return f"{missed}, less than {asked}; explore among more candidates, or run a test with two arms"
    return None
