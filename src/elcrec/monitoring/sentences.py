"""The results of checks as sentences."""

from elcrec.monitoring.checks import Score

NAMES = {
    "ctr": "click-through rate",
    "conversion": "conversion",
    "hit_rate": "hit rate of the next event",
    "cold": "share of users without a known history",
    "overlap": "overlap between users",
    "intent": "share of an intent",
    "mix": "mix of intents",
    "history": "lengths of known histories",
    "calibration": "click rate by score",
    "staleness": "age of the bundle",
}
"""The names of the checks for readers."""
_RATIOS = (
    (2.5, "is {:.1f} times what it was"),
    (2.05, "more than doubled"),
    (1.95, "doubled"),
    (1.0, "rose"),
    (0.51, "fell"),
    (0.49, "halved"),
    (0.0, "fell to {:.0%} of what it was"),
)
"""The words for a ratio to the reference, by the smallest ratio for which they are used."""


def say(score: Score) -> str:
    """Return one sentence on a bad day of a check."""
    match score.check:
        case "intent":
            return f"Intent {score.cell} {_moved(score)}: {_share(score.reference)} -> {_share(score.value)}."
        case "mix":
            return f"The mix of intents has changed: {_apart(score)}"
        case "history":
            return f"The lengths of known histories have changed: {_apart(score)}"
        case "calibration":
            return f"The relation of scores to clicks has changed: {_apart(score)}"
        case _:
            name = NAMES[score.check]
            return f"{name[0].upper()}{name[1:]} {_moved(score)}: {_share(score.reference)} -> {_share(score.value)}."


def say_stale(age: float, limit: int) -> str:
    """Return one sentence on a bundle that is too old."""
    return f"The bundle is {age:.0f} days old; it is stale from {limit} days."


def _moved(score: Score) -> str:
    if not score.reference:
        return "appeared"
    ratio = score.value / score.reference
    return next(words.format(ratio) for least, words in _RATIOS if ratio >= least)


def _share(value: float) -> str:
    return f"{value:.1%}" if value >= 0.1 else f"{value:.2%}"  # noqa: PLR2004 - three digits suffice


def _apart(score: Score) -> str:
    times = f"{score.value:.1f} times as far from the reference days as chance among users explains"
    return f"{times}, where these are {score.reference:.1f} times as far from each other."
