"""The section `evaluate`: the report, and what the bundle takes from it: rules, new items, search."""

from typing import Annotated, Literal

from msgspec import Meta

from elcrec.config.section import NonNegative, Positive, Section, Share

_PROBES, _OVERSAMPLING = 32, 4


class GroupRule(Section, frozen=True, kw_only=True):
    """What holds for the items of one category or intent."""

    cap: NonNegative | None = None
    """Most items of an answer; 0 shows none, `None` any number."""
    boost: Annotated[float, Meta(ge=-20, le=20)] = 0.0
    """Added to the score of each: 0.7 doubles its odds, -0.7 halves them."""


class RulesConfig(Section, frozen=True, kw_only=True):
    """What an answer must keep to, beside what the model finds best. A model is pushed with its rules."""

    categories: dict[str, GroupRule] = {}
    """Rules by category, as the items file names them."""
    intents: dict[str, GroupRule] = {}
    """Rules by intent, named by an item that belongs to it: indices of intents change with every training."""
    category_cap: Positive | None = None
    """Most items of each category that has no cap of its own; items without a category are not counted."""
    intent_cap: Positive | None = None
    """Most items of each intent that has no cap of its own."""
    diversity: Share = 0.0
    """Weight of unlikeness to what stands above: maximal marginal relevance (Carbonell and Goldstein, SIGIR 1998) over
    the cosine of item vectors."""
    calibration: Share = 0.0
    """Weight of showing the intents of a history in its proportions, as calibrated recommendations do (Steck, RecSys
    2018); what counts is how many places an intent lags behind its share."""
    new_items: GroupRule = GroupRule()
    """Cap and boost of items that have a vector without having been trained (`evaluate.new_items`)."""
    exploration: Annotated[float, Meta(ge=0, le=0.5)] = 0.0
    """Chance of each place to show an item drawn evenly from the other candidates; answers name the propensity."""
    candidates: Positive = 50
    """Best items, by score and boost, among which `diversity`, `calibration` and `exploration` choose."""
    shown_seconds: Annotated[float, Meta(ge=0, le=86_400)] = 0.0
    """How long what a server has shown a user is not shown to them again; 0 does not ask. Offline nothing is shown
    before, so the report does not see it."""

    def __post_init__(self) -> None:
        """Check that relevance keeps a weight."""
        if self.diversity + self.calibration > 1:
            raise ValueError(f"diversity {self.diversity} and calibration {self.calibration} add up to more than 1")

    @property
    def needs_intents(self) -> bool:
        """Whether a rule asks for the intents of items."""
        return bool(self.intents or self.intent_cap or self.calibration)


class NewItemsConfig(Section, frozen=True, kw_only=True):
    """Vectors for items that the model was not trained on. A model is pushed with them, and nothing is trained."""

    sources: list[Literal["co_seen", "text"]] = []
    """What tells of a new item; the first source that knows it gives its vector. `co_seen`: the mean of the trained
    items beside it in the histories, weighted by how often each stands there. `text`: the mean of the trained items
    nearest in the text of the items file, weighted by their cosine. Empty: new items are not recommended."""
    window: Positive = 1
    """Places before and after a new item whose items count as seen beside it (`co_seen`)."""
    least_users: Positive = 2
    """Users who must have met an item: with one alone its vector would be a copy of what they did (`co_seen`)."""
    log: str | None = None
    """Live events since the log that was trained on, as `elcrec events export` writes them; items of it that the model
    lacks are new (`co_seen`)."""
    neighbours: Positive = 10
    """Trained items whose vectors are averaged (`text`)."""
    text_model: str | None = None
    """Folder of a `model2vec` model, which needs the extra `model2vec`; nothing is downloaded. `None`: TF-IDF of
    character n-grams (`text`)."""
    held_out: Annotated[float, Meta(gt=0, lt=0.5)] = 0.05
    """Share of the trained items, chosen by a hash of their ids, which the report treats as if they were new."""
    held_out_seen: Positive = 5
    """Interactions of such an item that the sources may read: the first ones, as if nobody had met it since."""

    def __post_init__(self) -> None:
        """Check that no source is named twice, and no option belongs to a source that is not asked."""
        if len(set(self.sources)) < len(self.sources):
            raise ValueError(f"sources {self.sources} names one twice")
        for name, source in (("log", "co_seen"), ("text_model", "text")):
            if getattr(self, name) is not None and source not in self.sources:
                raise ValueError(f"new_items.{name} is read by the source {source}, which is not among sources")


class SearchConfig(Section, frozen=True, kw_only=True):
    """How the best items of the catalogue are found."""

    kind: Literal["exact", "approximate"] = "exact"
    """`exact` scores every item. `approximate` scores the items of a few parts of the catalogue, found by an index
    (extra `index`); the report says which share of the exact answers it finds, as `search_recall@20`."""
    probes: Positive = _PROBES
    """Parts of the catalogue, of about the square root of its size, that an approximate search looks into."""
    oversampling: Positive = _OVERSAMPLING
    """Candidates of an approximate search for each item of an answer, beside those that the user has met."""

    def __post_init__(self) -> None:
        """Check that no option is set that an exact search has no use for."""
        if self.kind == "exact" and (self.probes, self.oversampling) != (_PROBES, _OVERSAMPLING):
            raise ValueError("search.probes and search.oversampling are read by search.kind=approximate alone")


class EvaluateConfig(Section, frozen=True, kw_only=True):
    """The report's knobs."""

    bootstrap: Positive = 1000
    """Bootstrap samples of users for confidence intervals."""
    confidence: Annotated[float, Meta(gt=0.5, lt=1)] = 0.95
    """Level of the confidence intervals."""
    seed: NonNegative = 1
    """Seeds the bootstrap."""
    users: Positive | None = None
    """Most test users who are asked: those whose ids have the smallest hashes, mostly the same ones in every version of
    a log. The intervals are those of so many users, and the gate compares models by them alone. `None`: all users."""
    block_users: Positive | None = None
    """Users ranked at a time; bounds memory, changes no result. `None`: what suits the device that ranks."""
    top_items: Positive = 8
    """Items listed for each intent."""
    rules: RulesConfig = RulesConfig()
    """What answers must keep to. The report shows what each rule costs; the bundle carries them to every server."""
    items_file: str | None = None
    """The catalogue, what the shop knows of its items: CSV, JSON lines or Parquet with `item_id` and any of `title`,
    `category`, `available`, `available_until` (UTC unless it names a zone) and further columns. Pages and answers name
    items by it, and the bundle keeps a copy. Items that the file lacks are counted; they are available and have no
    category."""
    new_items: NewItemsConfig = NewItemsConfig()
    """How items that the model was not trained on get a vector."""
    search: SearchConfig = SearchConfig()
    """How servers and `recommend-all` find the best items; the bundle carries it. The metrics are those of exact
    search in any case."""

    def __post_init__(self) -> None:
        """Check that new items have what they need, and rules for them have items."""
        if "text" in self.new_items.sources and self.items_file is None:
            raise ValueError("new_items.sources: text is read from evaluate.items_file, which is not set")
        if self.rules.new_items != GroupRule() and not self.new_items.sources:
            raise ValueError("rules.new_items has no item to hold for: set evaluate.new_items.sources")
