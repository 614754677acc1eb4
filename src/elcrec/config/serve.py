"""The section `serve`: the server."""

from typing import Annotated, Literal
from urllib.parse import urlsplit

from msgspec import Meta

from elcrec.config.section import Positive, PositiveFloat, Section


class LimitsConfig(Section, frozen=True, kw_only=True):
    """Limits of requests; a request that exceeds them is refused with 413 or 422."""

    body_bytes: Positive = 1_048_576
    """Largest body."""
    k: Positive = 100
    """Largest number of items in an answer."""
    history: Positive = 1000
    """Longest history in a request."""
    filter_ids: Positive = 10_000
    """Largest number of ids in an allow-list or a deny-list."""
    events: Positive = 1000
    """Largest number of events in one request."""
    users: Positive = 256
    """Largest number of users in one inference request."""
    queue: Positive = 2048
    """Largest number of requests that wait for a ranking; more are refused with 503."""
    connections: Positive = 4096
    """Largest number of connections; for one more, the one that has waited longest for its client is closed."""
    head_bytes: Positive = 16_384
    """Largest size in bytes of a request before its body, and of trailers; more is refused with 431."""
    headers: Positive = 64
    """Largest number of headers in a request; more are refused with 431."""
    url_bytes: Positive = 4096
    """Longest URL; a longer one is refused with 414."""
    held_bytes: Positive = 33_554_432
    """Largest total size of bodies in progress; more are refused with 503."""
    event_requests: Positive = 64
    """Largest number of requests with events that wait for the store; more are refused with 503."""
    new_users: Annotated[int, Meta(ge=0)] = 100_000
    """Largest number of users whom the store knows from events alone; events of further new users are refused."""


class ExposureLogConfig(Section, frozen=True, kw_only=True):
    """The server's exposures: records of its answers."""

    folder: str | None = None
    """Folder of Parquet files with exposures; several servers may share it. `None`: no files are written."""
    raw_users: bool = False
    """Whether a row has the user's raw id in addition to its salted hash."""
    queue: Positive = 10_000
    """Largest number of answers that wait to be written; further ones are dropped and counted."""
    rows: Positive = 100_000
    """Number of answers after which a file is complete."""
    seconds: PositiveFloat = 300.0
    """Age in seconds after which a file is complete, however few answers it has."""
    sink: str | None = None
    """Address (http or https) to which answers are posted as batches of CloudEvents, with or without a folder; they
    have their own queue with `queue` places. `None`: nothing is posted."""
    sink_timeout: PositiveFloat = 2.0
    """Time limit in seconds of the sink for each step of accepting a batch, and for the rest after SIGTERM."""

    def __post_init__(self) -> None:
        """Check that the sink is an address, without a password that a log might show."""
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
        """Whether exposures are recorded at all."""
        return self.folder is not None or self.sink is not None


class ChallengerConfig(Section, frozen=True, kw_only=True):
    """How servers use the challenger."""

    mode: Literal["off", "shadow", "split"] = "off"
    """`off`: ignore the challenger; `shadow`: the champion answers all users, and the challenger also ranks a sample of
    the requests, unseen; `split`: the challenger answers a part of the users."""
    share: Annotated[float, Meta(gt=0, lt=1)] = 0.5
    """Part of the users whom the challenger answers with `split`; `elcrec promote` expects this share in the
    exposures."""
    sample: Annotated[float, Meta(gt=0, le=1)] = 0.1
    """Part of the answers that are compared with `shadow`."""
    queue: Positive = 256
    """Largest number of answers that wait for a comparison with `shadow`; more are dropped and counted."""


class ServeConfig(Section, frozen=True, kw_only=True):
    """The server."""

    host: str = "127.0.0.1"
    """Address to listen on; 0.0.0.0 in a container."""
    port: Annotated[int, Meta(ge=0, le=65535)] = 8080
    """Port to listen on; 0 chooses a free one and logs it."""
    threads: Positive = 1
    """Number of threads for matrix products; one process with one thread keeps one core busy."""
    limits: LimitsConfig = LimitsConfig()
    """Limits of requests."""
    hosts: list[str] = []
    """Names that clients use for this server, besides its addresses and localhost. A browser's request must use one. So
    must every request if this is set, or if the server listens only on this machine."""
    batch_size: Positive = 64
    """Largest number of requests that are ranked together."""
    batch_wait: Annotated[float, Meta(ge=0, le=0.1)] = 0.001
    """Seconds that a batch waits for more requests under load; a single request never waits."""
    store_timeout: PositiveFloat = 0.2
    """Seconds that a request waits for the online store before it uses its fallback."""
    store_retry: PositiveFloat = 0.5
    """Seconds between attempts to reach a store that is down."""
    event_timeout: PositiveFloat = 2.0
    """Time limit in seconds for the store to accept events."""
    stale_after: PositiveFloat = 2_592_000.0
    """Age in seconds of the newest event after which a history is stale: answers are marked, but not refused. If the
    log's times are only an order, histories are never stale."""
    poll: PositiveFloat = 1.0
    """Seconds between checks of the registry's champion."""
    ready_with_problems: bool = True
    """Whether the server reports itself ready while its store or registry has a problem, which its readiness names. It
    can still answer, and if all servers became unready at once, none would."""
    client_timeout: PositiveFloat = 10.0
    """Time limit in seconds for a client to send its headers, and again for its body."""
    drain: Positive = 20
    """Time limit in seconds for requests in flight after SIGTERM."""
    log_requests: bool = False
    """Whether to log every request (its route, status and time, never its content), or only failures."""
    demo: bool = True
    """Whether to serve the demo page, which shows users' histories."""
    items_file: str | None = None
    """As `evaluate.items_file`, read in place of the bundle's copy, and again when it changes, so that availability
    needs no push."""
    verify_key: str | None = None
    """File with a public key (PEM, elliptic curve); a bundle not signed with its private key is refused. `None`: no
    signatures are required."""
    exposures: ExposureLogConfig = ExposureLogConfig()
    """Exposures: records of the answers."""
    challenger: ChallengerConfig = ChallengerConfig()
    """Use of the challenger."""
    alias: Literal["champion", "challenger"] = "champion"
    """Alias of the version to serve: `challenger` for a server to which a gateway sends a part of the requests, beside
    others that serve the champion. While there is no challenger, it serves the champion."""

    def __post_init__(self) -> None:
        """Check that a server does not use the challenger in two ways."""
        if self.alias == "challenger" and self.challenger.mode != "off":
            raise ValueError(
                f"alias challenger serves only the challenger: set challenger.mode to off, not {self.challenger.mode}"
            )
