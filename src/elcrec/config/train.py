"""The section `train`: model and optimisation."""

from typing import Annotated, Literal, Self

import msgspec
from msgspec import Meta

from elcrec.config.section import NonNegative, Positive, PositiveFloat, Section, Share, Weight
from elcrec.registry import MIXERS, TERMS, HeadKind, IntentKind, find_objective, require_known

LONGEST_WINDOW = 1024
"""Largest window: rows are laid out in groups of equal length up to this one."""


class EncoderConfig(Section, frozen=True, kw_only=True):
    """The SASRec encoder: post-norm causal transformer blocks."""

    window: Annotated[int, Meta(gt=0, le=LONGEST_WINDOW)] = 50
    """Window: number of most recent items that the encoder reads (T)."""
    hidden_size: Positive = 64
    """Width of embeddings and states (D)."""
    num_blocks: Positive = 2
    """Number of transformer blocks (L)."""
    mixer: str = "attention"
    """Mixer of the positions of a row in a block (`elcrec.registry.MIXERS`). `rotary` is attention that encodes
    distances between items, without position embeddings: every item is read as the end of a prefix."""
    branch: str | None = None
    """A second mixer in parallel. `skip` passes the states through, `differences` adds their changes,
    `gated_differences` chooses among changes at each position. `None`: only one mixer, as in the paper."""
    branch_share: Share | None = 0.7
    """Share of the branch in the mean of both results, each with its own residual and LayerNorm. `None`: both are added
    to the states, under one LayerNorm."""
    distances: Annotated[tuple[Positive, ...], Meta(min_length=1)] = (1, 3, 5)
    """Distances, in items, of the earlier states that are subtracted (mixers `differences` and `gated_differences`)."""
    num_heads: Positive = 2
    """Number of attention heads; must divide `hidden_size`."""
    hidden_dropout: Annotated[float, Meta(ge=0, lt=1)] = 0.5
    """Dropout of embeddings, the mixer's output and the feed-forward output."""
    attention_dropout: Annotated[float, Meta(ge=0, lt=1)] = 0.5
    """Dropout of attention weights."""

    @property
    def takes_differences(self) -> bool:
        """Whether a mixer takes differences of states, so that `distances` count."""
        return not {self.mixer, self.branch}.isdisjoint(("differences", "gated_differences"))

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
    """The architecture of a model: everything that is needed to load its weights and to rank with them."""

    encoder: EncoderConfig = EncoderConfig()
    """The sequence encoder."""
    head: HeadKind = "dot"
    """How states score items."""
    intents: IntentKind | None = None
    """How the intent centres were made; `None` for a model without intents."""
    num_intents: NonNegative = 0
    """Number of intent centres (K)."""
    neighbours: NonNegative = 0
    """Number of neighbours of an item, which add to scores; 0 for a model without them."""
    followers: NonNegative = 0
    """Number of followers of an item, which add to scores; 0 for a model without them."""
    popularity: bool = False
    """Whether the popularity of items adds to scores."""


class IntentConfig(Section, frozen=True, kw_only=True):
    """Intent centres and how the contrastive losses use them (METHOD: ELCRec)."""

    num_intents: Annotated[int, Meta(ge=2)] = 256
    """Number of intent centres (K)."""
    narrower: tuple[Annotated[int, Meta(ge=2)], ...] = ()
    """Numbers of further, narrower intents of items (`elcrec2`): their centres are parts of the items' vectors as well,
    but nothing else is said of them."""
    center_scale: PositiveFloat = 0.3
    """Scale of the centres in the items' vectors (`elcrec2`). All items of an intent move its centre, so at scale 1 it
    would soon outweigh what is the items' own."""
    spread: Annotated[float, Meta(ge=0)] = 0.0
    """Scale, in an item's vector, of the mean of the own vectors of the items most similar to it, by the histories that
    hold both (`elcrec2`): what an item learns, these learn in part (a layer of LightGCN, He et al., SIGIR 2020). 0:
    none."""
    similar: Positive = 20
    """Number of these similar items."""
    reach: Positive = 2
    """Items that are at most so many places apart in a history are joined in the graph that intents of items are found
    in (`elcrec2`). Where the order of a history says little, more places say more."""
    fusion: Literal["shift", "concat", "none"] = "shift"
    """How L_seq fuses a state with its nearest learned centre: added, appended, or not at all."""
    temperature: PositiveFloat = 4.0
    """Temperature of L_intent; the product of a mean state and a centre is at most the square root of D."""
    mask_same_intent: bool = False
    """Whether L_intent contrasts a sequence only with sequences of other intents, not of its own (false negative
    mitigation, ICLRec)."""


class NextItemConfig(Section, frozen=True, kw_only=True):
    """L_next: the items with which the next item is compared, and how."""

    loss: Literal["bce", "softmax", "sampled_softmax"] = "bce"
    """`bce`: binary cross entropy against one drawn item per position (the paper); `softmax`: cross entropy among all
    items; `sampled_softmax`: among drawn items that all positions of a step share, for large catalogues."""
    samples: Positive = 1024
    """Number of drawn items per step (`sampled_softmax`)."""
    exponent: Share = 0.5
    """They are drawn proportionally to popularity to this power; 0 is uniform (`sampled_softmax`)."""
    robustness: Share = 0.0
    """q of the generalised cross entropy (1 - p^q) / q of the next item's probability p (`softmax` and
    `sampled_softmax`; Zhang and Sabuncu, NeurIPS 2018): the gradient of a target is multiplied by p^q, so that targets
    that nothing foretells count less. 0: cross entropy."""
    dropouts: NonNegative = 0
    """Number of dropout samples of a predicting state, at `encoder.hidden_dropout`, that are averaged to score items in
    training (multi-sample dropout, Inoue, arXiv 1905.09788); 0: the state itself."""
    prefixes: bool = False
    """Whether every prefix of a user's training items is its own sequence, of which only the last item is predicted,
    always from the window's last position, as in a ranking. Otherwise there is one sequence per user, and all its items
    are predicted."""

    def __post_init__(self) -> None:
        """Check that the loss has the robustness."""
        if self.robustness and self.loss == "bce":
            raise ValueError("robustness needs next_item.loss softmax or sampled_softmax")


class NeighbourConfig(Section, frozen=True, kw_only=True):
    """Neighbours of items: pairs of items that occur in the same histories more often than others explain.

    They are found when training ends (SLIM with feature selection, Ning and Karypis, ICDM 2011), and an item of a
    history adds to the scores of its neighbours. How much it adds is chosen on the validation split.
    """

    kept: NonNegative = 0
    """Number of neighbours of an item. 0: none, scores depend on vectors alone."""
    candidates: Positive = 50
    """Number of most similar items that an item is regressed on."""
    penalty: PositiveFloat = 30.0
    """Weight of the squared weights in the regression, in histories: pairs that fewer share hardly count."""


class CountConfig(Section, frozen=True, kw_only=True):
    """What counts of training items add to scores, as logarithms.

    They are counted when training ends, after the neighbours. How much they add is chosen on the validation split.
    """

    followers: NonNegative = 0
    """Number of followers of an item: those that came directly after it most often. The last item of a history adds to
    their scores. 0: none."""
    popularity: bool = False
    """Whether the popularity of items at the end of histories is added to their scores."""


class ViewConfig(Section, frozen=True, kw_only=True):
    """Augmented views: one of crop, mask and reorder is drawn for each view."""

    crop: Annotated[float, Meta(gt=0, le=1)] = 0.2
    """Share of the sequence that a crop keeps."""
    mask: Annotated[float, Meta(ge=0, lt=1)] = 0.7
    """Share of the positions that are masked."""
    reorder: Share = 0.2
    """Share of the sequence that is shuffled, in one contiguous run."""
    temperature: PositiveFloat = 4.0
    """Temperature of L_seq, which compares the views; the product of two mean states is at most D."""


class TrainConfig(Section, frozen=True, kw_only=True):
    """Model and optimisation."""

    objective: str = "elcrec"
    """`elcrec`: all four losses, intents learned with the model; `iclrec`: intents by k-means over all users before
    every epoch, without L_cluster and fusion; `sasrec`: only L_next, no intents; `elcrec2`: only L_next, and intents of
    items, whose centres are parts of the items' vectors. Further loss terms follow a plus sign: `sasrec+sequence` is
    CL4SRec (`elcrec.registry`)."""
    weights: dict[str, Weight] = {}
    """Weight of loss terms by name, in place of the defaults (`next_item` and `cluster` 1, `sequence` and `intent`
    0.1). A term of weight 0 is not computed; a term that the objective does not have is ignored."""
    encoder: EncoderConfig = EncoderConfig()
    """The sequence encoder."""
    head: HeadKind = "dot"
    """How states score items. `dot`: by their product with the item's embedding (the paper); `cosine`: by the cosine
    of both over a learned temperature."""
    next_item: NextItemConfig = NextItemConfig()
    """The recommendation loss."""
    intents: IntentConfig = IntentConfig()
    """Intents (not `sasrec`)."""
    neighbours: NeighbourConfig = NeighbourConfig()
    """Neighbours of items."""
    counts: CountConfig = CountConfig()
    """What counts add to scores."""
    views: ViewConfig = ViewConfig()
    """Augmented views for the contrastive losses (not `sasrec`)."""
    padding: Literal["ignored", "counted", "encoded"] = "counted"
    """How training treats the empty positions of a window. `ignored`: not at all. `counted`: L_cluster's behaviour is
    the mean over all T positions, for which one empty window per step is encoded; with the paper's large alphas, no
    other setting learns. `encoded`: as in the published code, every row is padded to T positions, padding is encoded
    and sees the whole row, every loss counts it, and L_seq compares two views position by position. That costs many
    times as much (docs/adr/0004). In serving, a sequence's intent always depends only on its own items."""
    seed: NonNegative = 1
    """Seed of weights, batches, negatives, views and dropout."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """`auto` uses CUDA if there is a GPU."""
    precision: Literal["float32", "bfloat16"] = "float32"
    """Type of the matrix products of the encoder and of L_next over items in training. Weights, sums, contrastive
    losses and all rankings stay in float32."""
    compile: bool = False
    """Whether to fuse the losses' operations with torch.compile, for training on one GPU: it takes some 16 s before the
    first epoch and saves 0.4 ms per step. It needs a C compiler."""
    learning_rate: PositiveFloat = 1e-3
    """Adam's learning rate."""
    averaging: Annotated[float, Meta(ge=0, lt=1)] = 0.0
    """Decay per step of the moving average of the weights, which is validated and kept. 0: no average."""
    item_updates: Literal["dense", "lazy"] = "dense"
    """`dense`: Adam updates every item embedding at every step. `lazy`: only those of a step's histories, targets and
    drawn negatives (lazy Adam), so that the cost of a step does not depend on the size of the catalogue; meant for 10^5
    items and more, with a loss that does not score all of them."""
    batch_size: Annotated[int, Meta(ge=2)] = 256
    """Number of sequences per step (B)."""
    epochs: Positive = 300
    """Most epochs."""
    patience: Positive = 40
    """Number of epochs without a better validation NDCG@20 after which training stops."""
    eval_every: Positive = 1
    """Number of epochs between validations."""
    valid_users: Positive | None = None
    """Number of users in a validation, chosen by the hashes of their ids; `None`: all. On large logs, ranking all users
    takes longer than an epoch, and a sample of 20,000 gives NDCG@20 with an error of about 0.0015."""

    def __post_init__(self) -> None:
        """Check that names are known, and that a run is validated before it may stop."""
        find_objective(self.objective)
        for name in self.weights:
            require_known(name, TERMS, "loss term")
        if self.padding == "encoded" and self.encoder.takes_differences:
            what = "padding encoded: differences would be taken from padding, which no ranking encodes"
            raise ValueError(f"{what}; set padding ignored or counted, or another mixer and branch")
        if self.item_updates == "lazy" and self.next_item.loss == "softmax":
            raise ValueError("item_updates lazy needs a loss that draws items: next_item.loss bce or sampled_softmax")
        if self.item_updates == "lazy" and self.intents.spread:
            raise ValueError("intents.spread needs item_updates dense: it reads the vectors of many more items")
        if self.item_updates == "lazy" and self.compile:
            raise ValueError("compile needs item_updates dense")
        if self.eval_every > self.patience:
            raise ValueError(f"eval_every {self.eval_every} is more than patience {self.patience}")

    @property
    def model(self) -> ModelConfig:
        """The architecture of the trained model."""
        intents = find_objective(self.objective).intents
        return ModelConfig(
            encoder=self.encoder,
            head=self.head,
            intents=intents,
            num_intents=self.intents.num_intents if intents else 0,
        )

    def as_baseline(self) -> Self:
        """Return the same configuration without intents, the baseline of the report."""
        return msgspec.structs.replace(self, objective="sasrec")
