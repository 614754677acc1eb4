"""A seeded world with explored answers, in which the true reward of every policy is known.

Users hold planted intents (elcrec.data.synthetic) and want items of them, some users more than others. How much a
place is looked at falls with its number. Champion and challenger guess intents and qualities, each with errors of its
own and some in common; what they show is drawn by the real rules.
"""

from datetime import UTC, datetime
from functools import cached_property

import numpy as np
import numpy.typing as npt

from elcrec.config import RulesConfig, SyntheticConfig
from elcrec.data.synthetic import generate
from elcrec.evaluation.places import Places
from elcrec.monitoring.replay import Answer, Candidates, Logged, by_id, match, places_of
from elcrec.ranking.chances import Chances
from elcrec.ranking.item_facts import ItemFacts
from elcrec.ranking.rules import Rules
from elcrec.serving.catalogue import Catalogue

Floats = npt.NDArray[np.float64]
SHOWN, INTENTS = 10, 8
_NOW = datetime(2026, 3, 2, tzinfo=UTC)


class World:
    """One world.

    Axes: `U` users, `V` items, `K` intents.
    """

    def __init__(self, seed: int, *, users: int = 1000, items: int = 160, exploration: float = 0.15) -> None:
        planted = generate(SyntheticConfig(seed=seed, users=users, items=items, intents=INTENTS))
        self._random = np.random.default_rng(seed)
        intent_V = planted.items["intent"].to_numpy()
        held_UK = np.zeros((users, INTENTS))
        for user, held in enumerate(planted.users["intents"].to_pylist()):
            held_UK[user, held] = 1.0
        quality_V = self._random.beta(2, 3, items)
        eager_U = self._random.gamma(4, 0.25, users)
        self._wanted_UV = np.minimum((0.01 + 0.3 * held_UK[:, intent_V] * quality_V) * eager_U[:, None], 1.0)
        self._look_P = 1 / (1 + 0.15 * np.arange(SHOWN))
        # Users with a higher click rate visit more often.
        self._visits_U = 1 + self._random.poisson(2 * eager_U)
        config = RulesConfig(exploration=exploration, candidates=50)
        self._rules = Rules(config, ItemFacts.nothing(items), np.zeros((items + 1, 2), np.float32))
        self._catalogue = Catalogue(item_ids=planted.items["item_id"].combine_chunks(), counts=np.ones(items, np.int64))
        shared_UV = held_UK[:, intent_V] + quality_V + self._errors(intent_V, users, 0.5)
        self._champion_UV = shared_UV + self._errors(intent_V, users, 0.5)
        self._challenger_UV = shared_UV + self._errors(intent_V, users, 0.2)

    def log(self, users: int) -> Places:
        """Return what the answers to some users, drawn from all, tell."""
        drawn = self._random.integers(len(self._visits_U), size=users)
        answers = [self._answer(number, user) for number, user in enumerate(drawn) for _ in range(self._visits_U[user])]
        return places_of(answers)

    @cached_property
    def truth(self) -> tuple[float, float]:
        """Clicks per shown item, champion's and challenger's, over all users that could come."""
        worth_U2 = np.array([self._worth(user) for user in range(len(self._visits_U))])
        share_U = self._visits_U / self._visits_U.sum()
        champion, challenger = (share_U @ worth_U2).tolist()
        return champion, challenger

    def _errors(self, intent_V: npt.NDArray[np.int64], users: int, size: float) -> Floats:
        """Return how wrong a guess is about every user's intents and every item's quality, [U, V]."""
        of_intents_UK = self._random.normal(0, size, (users, INTENTS))
        errors_UV: Floats = of_intents_UK[:, intent_V] + self._random.normal(0, size / 2, len(intent_V))
        return errors_UV

    def _scores(self, of_UV: Floats, user: int) -> npt.NDArray[np.float32]:
        return np.concatenate(([-np.inf], of_UV[user])).astype(np.float32)[None]

    def _chances(self, of_UV: Floats, user: int) -> Chances:
        return next(self._rules.chances(self._scores(of_UV, user), SHOWN, [np.empty(0, np.int64)]))

    @cached_property
    def _known(self) -> dict[int, tuple[Candidates, Candidates]]:
        return {}

    def _both(self, user: int) -> tuple[Candidates, Candidates]:
        if user not in self._known:
            own, other = (
                by_id(self._chances(of, user), self._catalogue) for of in (self._champion_UV, self._challenger_UV)
            )
            self._known[user] = own, other
        return self._known[user]

    def _answer(self, number: int, user: int) -> Answer:
        (picked,) = self._rules.pick(
            self._scores(self._champion_UV, user), SHOWN, [np.empty(0, np.int64)], self._random
        )
        clicked = self._random.random(SHOWN) < self._wanted_UV[user, picked.items - 1] * self._look_P
        ids = [self._catalogue.ids[item] for item in picked.items]
        logged = Logged(str(user), _NOW, ids, picked.propensities.tolist(), clicked.tolist())
        own, other = self._both(user)
        answer = match(logged, number, own)
        assert answer is not None, "the chances are those of the draws"
        return answer.against(other)

    def _worth(self, user: int) -> list[float]:
        """Return clicks per shown item, of the challenger's those on what the champion could have shown."""
        own, other = (self._chances(of, user) for of in (self._champion_UV, self._challenger_UV))
        possible = np.isin(other.items_C, own.items_C[own.chance_PC.any(0)])
        return [
            float(self._look_P @ own.chance_PC @ self._wanted_UV[user, own.items_C - 1]) / SHOWN,
            float(self._look_P @ (other.chance_PC * possible) @ self._wanted_UV[user, other.items_C - 1]) / SHOWN,
        ]
