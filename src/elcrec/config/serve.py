"""The section `serve`: the server."""

from typing import Annotated, Literal
from urllib.parse import urlsplit

from msgspec import Meta

from elcrec.config.section import Positive, PositiveFloat, Section


class LimitsConfig(Section, frozen=True, kw_only=True):
    """What one request may ask for; more is refused with 413 or 422."""

    body_bytes: Positive = 1_048_576
    """Largest body."""
    k: Positive = 100
    """Most items of an answer."""
    history: Positive = 1000
    """Longest history that a request brings along."""
    filter_ids: Positive = 10_000
    """Most ids of an allow-list or a deny-list."""
    events: Positive = 1000
    """Most events of one request."""
    users: Positive = 256
    """Most users of one inference request."""
    queue: Positive = 2048
    """Most requests that wait for a ranking; more are turned away with 503."""
    connections: Positive = 4096
    """Most connections at a time; for one more, the one that has waited longest for its client is closed."""
    head_bytes: Positive = 16_384
    """Largest request before its body, and largest trailers; more is refused with 431."""
    headers: Positive = 64
    """Most headers of a request; more are refused with 431."""
    url_bytes: Positive = 4096
    """Longest URL; a longer one is refused with 414."""
    held_bytes: Positive = 33_554_432
    """Largest sum of the bodies that are being read or worked on; more are turned away with 503."""
    event_requests: Positive = 64
    """Most requests with events that wait for the store; more are turned away with 503."""
    new_users: Annotated[int, Meta(ge=0)] = 100_000
    """Most users whom the store knows from events alone; events of one more are refused."""


class ExposureLogConfig(Section, frozen=True, kw_only=True):
    """What the server writes down of its answers."""

    folder: str | None = None
    """Folder of Parquet files with what was shown to whom; several servers may share it. `None`: nothing is written."""
    raw_users: bool = False
    """Whether a row has the user's own id beside the salted hash of it."""
    queue: Positive = 10_000
    """Most answers that wait to be written; of more, the newest are left out and counted."""
    rows: Positive = 100_000
    """Answers from which a file is complete."""
    seconds: PositiveFloat = 300.0
    """Age from which a file is complete, however few answers it has."""
    sink: str | None = None
    """Address (http or https) that answers are posted to as batches of CloudEvents, with or without a folder; a queue
    of its own has `queue` places. `None`: nothing is posted."""
    sink_timeout: PositiveFloat = 2.0
    """Seconds that the sink has for each step of taking a batch, and for all that is left after SIGTERM."""

    def __post_init__(self) -> None:
        """Check that the sink is an address, and holds no password that a log might show."""
        if self.sink is None:
            return
        try:
            parts = urlsplit(self.sink)
            sound = parts.scheme in {"http", "https"} and bool(parts.hostname) and parts.port != 0
        except ValueError:
            sound = False
        if not sound or "@" in parts.netloc or parts.fragment or any(letter <= " " for letter in self.sink):
            raise ValueError("sink: not an http or https address without user, password and fragment")

    @property
    def wanted(self) -> bool:
        """Whether answers go anywhere."""
        return self.folder is not None or self.sink is not None


class ChallengerConfig(Section, frozen=True, kw_only=True):
    """The challenger beside the champion."""

    mode: Literal["off", "shadow", "split"] = "off"
    """`off`: a challenger is not looked at; `shadow`: the champion answers all users, and the challenger ranks for a
    sample of the same requests, aside; `split`: the challenger answers a part of the users."""
    share: Annotated[float, Meta(gt=0, lt=1)] = 0.5
    """Part of the users whom the challenger answers under `split`; `elcrec promote` expects it of the exposures."""
    sample: Annotated[float, Meta(gt=0, le=1)] = 0.1
    """Part of the answers that are compared under `shadow`."""
    queue: Positive = 256
    """Most answers that wait for a comparison under `shadow`; more are left out and counted."""


class ServeConfig(Section, frozen=True, kw_only=True):
    """The server."""

    host: str = "127.0.0.1"
    """Address to listen on; 0.0.0.0 in a container."""
    port: Annotated[int, Meta(ge=0, le=65535)] = 8080
    """Port to listen on; 0 takes a free one and logs it."""
    threads: Positive = 1
    """Threads of a matrix product; one process with one thread keeps one core busy."""
    limits: LimitsConfig = LimitsConfig()
    """What one request may ask for."""
    hosts: list[str] = []
    """Names that clients use for this server, beside its addresses and localhost. A browser's request must have one.
    So must every request where this is set, or where the server listens on this machine alone."""
    batch_size: Positive = 64
    """Most requests that are ranked together."""
    batch_wait: Annotated[float, Meta(ge=0, le=0.1)] = 0.001
    """Seconds that a batch waits for company while requests come thick; a lone request never waits."""
    store_timeout: PositiveFloat = 0.2
    """Seconds that the online store has to answer before a request falls back."""
    store_retry: PositiveFloat = 0.5
    """Seconds between two attempts to reach a store that is down."""
    event_timeout: PositiveFloat = 2.0
    """Seconds that the store has to take events."""
    stale_after: PositiveFloat = 2_592_000.0
    """Age in seconds of its newest event from which a history is called stale: answers are marked, none is refused.
    Where the log's times are only an order, histories have no age."""
    poll: PositiveFloat = 1.0
    """Seconds between two looks at the registry's champion."""
    ready_with_problems: bool = True
    """Whether the server calls itself ready while its store or registry has a problem, which its readiness names: it
    answers all the same, and were every server of a kind not ready, nobody would answer."""
    client_timeout: PositiveFloat = 10.0
    """Seconds that a client has to send its headers, and again its body."""
    drain: Positive = 20
    """Seconds that requests in flight have to finish after SIGTERM."""
    log_requests: bool = False
    """Whether every request is logged (its route, status and time, never its content), or only failures."""
    demo: bool = True
    """Whether the demo page is served; it shows users' histories."""
    items_file: str | None = None
    """As `evaluate.items_file`, read in place of the bundle's copy, and again when it changes: availability without a
    push."""
    verify_key: str | None = None
    """File with a public key (PEM, elliptic curve): a bundle that its private key has not signed is refused. `None`:
    signatures are not asked for."""
    exposures: ExposureLogConfig = ExposureLogConfig()
    """What is written down of the answers."""
    challenger: ChallengerConfig = ChallengerConfig()
    """What is done with a challenger."""
    alias: Literal["champion", "challenger"] = "champion"
    """Which version is served: `challenger` for a server that a gateway sends a part of the requests to, beside others
    that serve the champion. While there is no challenger it serves the champion."""

    def __post_init__(self) -> None:
        """Check that a server has one challenger at most."""
        if self.alias == "challenger" and self.challenger.mode != "off":
            raise ValueError(f"alias challenger serves it alone: set challenger.mode off, not {self.challenger.mode}")
