"""The section `train`: model and optimisation."""

from typing import Annotated, Literal, Self

import msgspec
from msgspec import Meta

from elcrec.config.section import NonNegative, Positive, PositiveFloat, Section, Share, Weight
from elcrec.registry import MIXERS, TERMS, HeadKind, IntentKind, find_objective, require_known

LONGEST_WINDOW = 1024
"""Rows are laid out in groups of one length, up to this one."""


class EncoderConfig(Section, frozen=True, kw_only=True):
    """The SASRec encoder: post-norm causal transformer blocks."""

    window: Annotated[int, Meta(gt=0, le=LONGEST_WINDOW)] = 50
    """Most recent items that the encoder sees (T)."""
    hidden_size: Positive = 64
    """Width of embeddings and states (D)."""
    num_blocks: Positive = 2
    """Number of transformer blocks (L)."""
    mixer: str = "attention"
    """What a block mixes the positions of a row with (`elcrec.registry.MIXERS`). `rotary` is attention that knows how
    far apart items are, without position embeddings: every item is read as the end of a prefix."""
    branch: str | None = None
    """A second mixer beside it, each with its own residual and LayerNorm, of whose results a block takes the mean:
    `skip` is the states as they are, `differences` adds what changed. `None` for the mixer alone, as in the paper."""
    branch_share: Share = 0.7
    """Share of the branch in that mean."""
    distances: Annotated[tuple[Positive, ...], Meta(min_length=1)] = (1, 3, 5)
    """How many items before each other one looks for what changed (the mixer `differences`)."""
    num_heads: Positive = 2
    """Attention heads; must divide `hidden_size`."""
    hidden_dropout: Annotated[float, Meta(ge=0, lt=1)] = 0.5
    """Dropout of embeddings, the mixer's output and the feed-forward output."""
    attention_dropout: Annotated[float, Meta(ge=0, lt=1)] = 0.5
    """Dropout of attention weights."""

    def __post_init__(self) -> None:
        """Check that the mixer is known and the heads divide the width."""
        require_known(self.mixer, MIXERS, "mixer")
        if self.branch is not None:
            require_known(self.branch, MIXERS, "branch")
        if self.hidden_size % self.num_heads:
            raise ValueError(f"num_heads {self.num_heads} does not divide hidden_size {self.hidden_size}")
        if "rotary" in (self.mixer, self.branch) and self.hidden_size // self.num_heads % 2:
            what = f"{self.num_heads} heads of {self.hidden_size // self.num_heads}"
            raise ValueError(f"the rotary mixer turns pairs of dimensions, so {what} cannot be; use an even width")


class ModelConfig(Section, frozen=True, kw_only=True):
    """The architecture of a model: all that is needed to load its weights and to rank with them."""

    encoder: EncoderConfig = EncoderConfig()
    """The sequence encoder."""
    head: HeadKind = "dot"
    """How its states score items."""
    intents: IntentKind | None = None
    """How the intent centres came about; `None` for a model without intents."""
    num_intents: NonNegative = 0
    """Number of intent centres (K)."""


class IntentConfig(Section, frozen=True, kw_only=True):
    """Intent centres and how the contrastive losses use them (METHOD: ELCRec)."""

    num_intents: Annotated[int, Meta(ge=2)] = 256
    """Number of intent centres (K)."""
    fusion: Literal["shift", "concat", "none"] = "shift"
    """How L_seq joins a state with its nearest learned centre: added, appended, or not at all."""
    temperature: PositiveFloat = 4.0
    """Temperature of L_intent; a product of a mean state and a centre is up to the root of D."""
    mask_same_intent: bool = False
    """Whether L_intent contrasts a sequence with sequences of other intents alone, not with those of its own
    (false negative mitigation, ICLRec)."""


class NextItemConfig(Section, frozen=True, kw_only=True):
    """L_next: which other items the next item is compared with, and how."""

    loss: Literal["bce", "softmax", "sampled_softmax"] = "bce"
    """`bce`: binary cross entropy against one drawn item a position (the paper); `softmax`: cross entropy among all
    items; `sampled_softmax`: among drawn items that a step's positions share, for large catalogues."""
    samples: Positive = 1024
    """Drawn items a step (`sampled_softmax`)."""
    exponent: Share = 0.5
    """They are drawn from popularity to this power; 0 is uniform (`sampled_softmax`)."""
    dropouts: NonNegative = 0
    """How many dropouts of a predicting state, at `encoder.hidden_dropout`, are averaged to score items in training
    (multi-sample dropout, Inoue, arXiv 1905.09788); 0: the state itself."""
    prefixes: bool = False
    """Whether every prefix of a user's training items is a sequence of its own, of which the last item alone is
    predicted, always from the window's last position, as in a ranking. Else one sequence a user, and all of it."""


class ViewConfig(Section, frozen=True, kw_only=True):
    """Augmented views: one of crop, mask and reorder is drawn for each view."""

    crop: Annotated[float, Meta(gt=0, le=1)] = 0.2
    """Share of the sequence that a crop keeps."""
    mask: Annotated[float, Meta(ge=0, lt=1)] = 0.7
    """Share of the positions that a mask blanks."""
    reorder: Share = 0.2
    """Share of the sequence that is shuffled, in one run."""
    temperature: PositiveFloat = 4.0
    """Temperature of L_seq, which compares the views; a product of two mean states is up to D."""


class TrainConfig(Section, frozen=True, kw_only=True):
    """Model and optimisation."""

    objective: str = "elcrec"
    """`elcrec`: all four losses, intents learned with the model; `iclrec`: intents by k-means over all users before
    every epoch, no L_cluster and no fusion; `sasrec`: L_next alone, no intents; `elcrec2`: intents that score items
    with the state, and are kept apart by what they tell of a sequence (no views, no fusion). Further loss terms follow
    a plus sign: `sasrec+sequence` is CL4SRec (`elcrec.registry`)."""
    weights: dict[str, Weight] = {}
    """Weight of a loss term by name, where it is not the term's own (`next_item` and `cluster` 1, `sequence`,
    `intent` and `assignment` 0.1). A term of weight 0 is not computed; a term that the objective does not have is not
    asked for."""
    encoder: EncoderConfig = EncoderConfig()
    """The sequence encoder."""
    head: HeadKind = "dot"
    """How states score items. `dot`: by their product with the item's embedding (the paper); `cosine`: by the cosine
    of both over a learned temperature."""
    next_item: NextItemConfig = NextItemConfig()
    """The recommendation loss."""
    intents: IntentConfig = IntentConfig()
    """Intents (not `sasrec`)."""
    views: ViewConfig = ViewConfig()
    """Augmented views for the contrastive losses (not `sasrec`)."""
    padding: Literal["ignored", "counted", "encoded"] = "counted"
    """What training makes of the empty positions of a window. `ignored`: nothing. `counted`: L_cluster's behaviour is
    the mean over all T positions, for which one empty window a step is encoded; with the paper's large alphas nothing
    else learns. `encoded`: as the published code does it, every row is filled up to T positions, padding is encoded and
    sees the whole row, every loss counts it, and L_seq compares two views position by position. That costs many times
    as much (docs/adr/0004). A served sequence's intent is told by its own items whatever this is."""
    seed: NonNegative = 1
    """Seeds weights, batches, negatives, views and dropout."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """`auto` takes CUDA where there is a GPU."""
    precision: Literal["float32", "bfloat16"] = "float32"
    """Type of the matrix products of the encoder and of L_next over items, in training. Weights, sums, the contrastive
    losses and every ranking stay in float32."""
    compile: bool = False
    """Whether torch.compile makes the losses' operations fewer, for training on one GPU: a third of a minute before
    the first epoch for 0.4 ms a step. It needs a C compiler."""
    learning_rate: PositiveFloat = 1e-3
    """Adam's learning rate."""
    averaging: Annotated[float, Meta(ge=0, lt=1)] = 0.0
    """Decay of the moving average of the weights, a step; the average is what is validated and kept. 0: no average."""
    item_updates: Literal["dense", "lazy"] = "dense"
    """`dense`: Adam moves every item embedding at every step. `lazy`: those alone that a step names, as history, target
    or drawn negative (lazy Adam), so that a step costs the same whatever the size of the catalogue; for 10^5 items and
    more, with a loss that does not score all of them."""
    batch_size: Annotated[int, Meta(ge=2)] = 256
    """Sequences a step (B)."""
    epochs: Positive = 300
    """Most epochs."""
    patience: Positive = 40
    """Epochs without a better validation NDCG@20 before training stops."""
    eval_every: Positive = 1
    """Epochs between validations."""
    valid_users: Positive | None = None
    """Users that a validation ranks, chosen by the hashes of their ids; `None`: all. On large logs a ranking of all
    costs more than the epoch before it, and a sample of 20,000 tells NDCG@20 to about 0.0015."""

    def __post_init__(self) -> None:
        """Check that the names are known and a run is validated before it may stop."""
        find_objective(self.objective)
        for name in self.weights:
            require_known(name, TERMS, "loss term")
        if self.padding == "encoded" and find_objective(self.objective).intents == "assigned":
            raise ValueError(f"objective {self.objective!r} takes means of items alone: padding is counted or ignored")
        if self.item_updates == "lazy" and self.next_item.loss == "softmax":
            raise ValueError("item_updates lazy needs a loss that draws items: next_item.loss bce or sampled_softmax")
        if self.item_updates == "lazy" and self.compile:
            raise ValueError("compile needs item_updates dense")
        if self.eval_every > self.patience:
            raise ValueError(f"eval_every {self.eval_every} is more than patience {self.patience}")

    @property
    def model(self) -> ModelConfig:
        """The architecture that is trained."""
        intents = find_objective(self.objective).intents
        return ModelConfig(
            encoder=self.encoder,
            head=self.head,
            intents=intents,
            num_intents=self.intents.num_intents if intents else 0,
        )

    def as_baseline(self) -> Self:
        """Return the same configuration without intents: what the report compares the model with."""
        return msgspec.structs.replace(self, objective="sasrec")
