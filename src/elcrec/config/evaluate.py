"""The section `evaluate`: the report, and what the bundle takes from it: rules, new items, search."""

from typing import Annotated, Literal

from msgspec import Meta

from elcrec.config.section import NonNegative, Positive, Section, Share

_PROBES, _OVERSAMPLING = 32, 4


class GroupRule(Section, frozen=True, kw_only=True):
    """The rule for the items of one category or intent."""

    cap: NonNegative | None = None
    """Cap: largest number of these items in an answer; 0 shows none, `None` is no limit."""
    boost: Annotated[float, Meta(ge=-20, le=20)] = 0.0
    """Boost: added to the score of each item; 0.7 doubles its odds, -0.7 halves them."""


class RulesConfig(Section, frozen=True, kw_only=True):
    """Rules for answers, applied after the model's scores. A model is pushed with its rules."""

    categories: dict[str, GroupRule] = {}
    """Rules by category, as named in the items file."""
    intents: dict[str, GroupRule] = {}
    """Rules by intent. An intent is named by an item that belongs to it, because indices of intents change with every
    training."""
    category_cap: Positive | None = None
    """Cap of each category without its own cap; items without a category are not counted."""
    intent_cap: Positive | None = None
    """Cap of each intent without its own cap."""
    diversity: Share = 0.0
    """Weight of dissimilarity to the items above: maximal marginal relevance (Carbonell and Goldstein, SIGIR 1998) with
    the cosine of item vectors."""
    calibration: Share = 0.0
    """Weight of showing the intents of a history in its proportions, as in calibrated recommendations (Steck, RecSys
    2018), measured by the number of places that an intent lags behind its share."""
    new_items: GroupRule = GroupRule()
    """Cap and boost of new items, which have a given vector (`evaluate.new_items`)."""
    exploration: Annotated[float, Meta(ge=0, le=0.5)] = 0.0
    """Exploration: probability for each place to show an item drawn uniformly from the other candidates; answers give
    the propensity."""
    candidates: Positive = 50
    """Number of best items, by score and boost, from which `diversity`, `calibration` and `exploration` choose."""
    shown_seconds: Annotated[float, Meta(ge=0, le=86_400)] = 0.0
    """Time for which an item that a server has shown to a user is not shown to them again; 0 for no such rule. It has
    no effect offline, so it is not part of the report."""

    def __post_init__(self) -> None:
        """Check that relevance keeps a weight."""
        if self.diversity + self.calibration > 1:
            raise ValueError(f"diversity {self.diversity} and calibration {self.calibration} add up to more than 1")

    @property
    def needs_intents(self) -> bool:
        """Whether a rule needs the intents of items."""
        return bool(self.intents or self.intent_cap or self.calibration)


class NewItemsConfig(Section, frozen=True, kw_only=True):
    """Vectors for items that the model was not trained on. A model is pushed with them, and nothing is trained."""

    sources: list[Literal["co_seen", "text"]] = []
    """Sources of vectors; the first one that knows a new item gives its vector. `co_seen`: the mean of its trained
    neighbours in histories, weighted by co-occurrence. `text`: the mean of the trained items nearest in the text of the
    items file, weighted by their cosine. Empty: new items are not recommended."""
    window: Positive = 1
    """Number of positions before and after a new item whose items count as its neighbours (`co_seen`)."""
    least_users: Positive = 2
    """Smallest number of users who have met an item; with a single user, the vector would only copy that user's history
    (`co_seen`)."""
    log: str | None = None
    """File of live events since the training log, written by `elcrec events export`; its items that the model lacks are
    new (`co_seen`)."""
    neighbours: Positive = 10
    """Number of trained items whose vectors are averaged (`text`)."""
    text_model: str | None = None
    """Folder of a `model2vec` model, which needs the extra `model2vec`; nothing is downloaded. `None`: TF-IDF of
    character n-grams (`text`)."""
    held_out: Annotated[float, Meta(gt=0, lt=0.5)] = 0.05
    """Share of the trained items, chosen by a hash of their ids, that the report treats as new."""
    held_out_seen: Positive = 5
    """Number of first interactions of such an item that the sources may read."""

    def __post_init__(self) -> None:
        """Check that no source is named twice, and that every option belongs to a named source."""
        if len(set(self.sources)) < len(self.sources):
            raise ValueError(f"sources {self.sources} names one twice")
        for name, source in (("log", "co_seen"), ("text_model", "text")):
            if getattr(self, name) is not None and source not in self.sources:
                raise ValueError(f"new_items.{name} is an option of the source {source}, which is not among sources")


class SearchConfig(Section, frozen=True, kw_only=True):
    """How the best items of the catalogue are searched."""

    kind: Literal["exact", "approximate"] = "exact"
    """`exact` scores every item. `approximate` scores only the items in a few parts of the catalogue, found by an index
    (extra `index`); the report gives its recall of the exact answers as `search_recall@20`."""
    probes: Positive = _PROBES
    """Number of parts of the catalogue that an approximate search reads; there are about as many as the square root of
    the catalogue's size."""
    oversampling: Positive = _OVERSAMPLING
    """Number of candidates of an approximate search per item of an answer, besides items that the user has met."""

    def __post_init__(self) -> None:
        """Check that no option of approximate search is set for exact search."""
        if self.kind == "exact" and (self.probes, self.oversampling) != (_PROBES, _OVERSAMPLING):
            raise ValueError("search.probes and search.oversampling are options of search.kind=approximate only")


class EvaluateConfig(Section, frozen=True, kw_only=True):
    """The evaluation and its report."""

    bootstrap: Positive = 1000
    """Number of bootstrap samples of users for confidence intervals."""
    confidence: Annotated[float, Meta(gt=0.5, lt=1)] = 0.95
    """Level of the confidence intervals."""
    seed: NonNegative = 1
    """Seed of the bootstrap."""
    users: Positive | None = None
    """Largest number of test users: those whose ids have the smallest hashes, mostly the same in every version of a
    log. Intervals are for this number of users, and the gate compares models only on them. `None`: all users."""
    block_users: Positive | None = None
    """Number of users ranked at a time; it limits memory and changes no result. `None`: a number suitable for the
    device."""
    top_items: Positive = 8
    """Number of items listed for each intent."""
    rules: RulesConfig = RulesConfig()
    """Rules for answers. The report shows the cost of each rule; the bundle carries them to every server."""
    items_file: str | None = None
    """The items file: CSV, JSON lines or Parquet with `item_id` and any of `title`, `category`, `available`,
    `available_until` (UTC unless it names a zone) and further columns. Pages and answers show its titles, and the
    bundle keeps a copy. Items that the file lacks are counted; they are available and have no category."""
    new_items: NewItemsConfig = NewItemsConfig()
    """How new items, on which the model was not trained, get a vector."""
    search: SearchConfig = SearchConfig()
    """How servers and `recommend-all` find the best items; it is stored in the bundle. Metrics are always those of
    exact search."""

    def __post_init__(self) -> None:
        """Check that the sources of new items have their data, and that rules for new items have items."""
        if "text" in self.new_items.sources and self.items_file is None:
            raise ValueError("new_items.sources: text is read from evaluate.items_file, which is not set")
        if self.rules.new_items != GroupRule() and not self.new_items.sources:
            raise ValueError("rules.new_items applies to no item: set evaluate.new_items.sources")
