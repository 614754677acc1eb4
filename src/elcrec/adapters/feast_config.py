"""Feast's configuration: the repository's feature_store.yaml, adapted to a store folder and the environment.

`REDIS` puts the online store on Redis, `FEAST_REGISTRY` the registry on a database. Both may hold a password, so they
are never written to a file or shown in a message.
"""

import fcntl
import hashlib
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import yaml
from feast.repo_config import RepoConfig
from pydantic import ValidationError
from sqlalchemy import NullPool, create_engine, text

from elcrec.artifacts import atomic_file
from elcrec.errors import UserError

DEFINITION_FILE = "feature_store.yaml"
_SQLITE = "sqlite:///"
_POSTGRES = "postgresql+psycopg://"
_READ_SECONDS = 0.2
"""Seconds that a reader waits for Redis; after that it is better to answer without a history."""
_WRITE_SECONDS = 30.0
_REGISTRY_SECONDS = 5
_ADVISORY_LOCK = 0x656C_6372_6563


@dataclass(frozen=True, kw_only=True)
class Servers:
    """Addresses of servers that replace files of a store folder.

    Attributes:
        redis: `redis://[user:password@]host:port/db` or Feast's own connection string; `None`: as configured.
        registry: a database's URL; `None`: as configured.
    """

    redis: str | None = field(default=None, repr=False)
    registry: str | None = field(default=None, repr=False)


@dataclass(frozen=True, kw_only=True)
class FeastConfig:
    """The places of the definitions, the data and the servers of one installation."""

    repository: Path
    folder: Path
    servers: Servers

    def load(self, *, patient: bool = False) -> RepoConfig:
        """Return the configuration; `patient` waits for a slow store, which bulk writers must do and readers must not.

        A copy with the folder's paths is written there for Feast's own command line.

        Raises:
            UserError: the file is missing or invalid, or an address is invalid.
        """
        document = self._document()
        own = self.folder / DEFINITION_FILE
        with atomic_file(own) as scratch:
            scratch.write_text(yaml.safe_dump(document, sort_keys=False), encoding="utf-8")
        expanded = yaml.safe_load(os.path.expandvars(own.read_text(encoding="utf-8")))
        self._address(expanded, _WRITE_SECONDS if patient else _READ_SECONDS)
        try:
            config = RepoConfig(**expanded)
        except ValidationError as error:
            raise UserError(f"not a valid Feast configuration ({error})", where=own) from error
        config.repo_path = self.repository
        return config

    @contextmanager
    def registry_lock(self) -> Iterator[None]:
        """Keep out other writers of the registry: Feast changes it in many steps, and creates its tables in many."""
        url = self.servers.registry and _registry_url(self.servers.registry)
        if url and url.startswith(_POSTGRES):
            engine = create_engine(url, connect_args={"connect_timeout": _REGISTRY_SECONDS})
            try:
                with engine.connect() as connection:
                    connection.execute(text(f"SELECT pg_advisory_lock({_ADVISORY_LOCK})"))
                    yield
            finally:
                engine.dispose()
        else:
            with file_lock(self.folder / "registry.lock"):
                yield

    def target(self) -> str:
        """Return an identifier of this online store that does not reveal an address."""
        return hashlib.sha256(repr((self.servers.redis, self._document()["online_store"])).encode()).hexdigest()

    def files(self) -> tuple[Path | None, Path | None]:
        """Return the files of the online store and of the registry; `None` for one on a server."""
        document = self._document()
        online, path = document["online_store"], str(document["registry"]["path"])
        registry = Path(path.removeprefix(_SQLITE)) if path.startswith(_SQLITE) else None
        return (Path(online["path"]) if online["type"] == "sqlite" else None), registry

    def require(self) -> Path:
        """Return the repository's own feature_store.yaml.

        Raises:
            UserError: there are none.
        """
        source = self.repository / DEFINITION_FILE
        if not source.is_file():
            fix = "run in the project's folder or set ELCREC_FEATURES to the Feast repository"
            raise UserError("no Feast repository", where=source, fix=fix)
        return source

    def _document(self) -> dict[str, Any]:
        document: dict[str, Any] = yaml.safe_load(self.require().read_text(encoding="utf-8"))
        registry, online = document["registry"], document["online_store"]
        path = registry["path"].removeprefix(_SQLITE)
        if path != registry["path"] and not path.startswith("/"):
            registry["path"] = f"{_SQLITE}{self.folder / Path(path).name}"
        if online["type"] == "sqlite" and not Path(online["path"]).is_absolute():
            online["path"] = str(self.folder / Path(online["path"]).name)
        if self.servers.redis:
            # Other settings of a Redis store, such as key_ttl_seconds, stay.
            options = online if online["type"] == "redis" else {}
            document["online_store"] = {**options, "type": "redis", "connection_string": "${REDIS}"}
        if self.servers.registry:
            registry["path"] = "${FEAST_REGISTRY}"
        return document

    def _address(self, document: dict[str, Any], seconds: float) -> None:
        """Insert the servers' addresses, and our options for the connections."""
        registry, online = document["registry"], document["online_store"]
        # Readers refresh explicitly, when a service is checked. An automatic refresh between requests would delay one
        # of them, by seconds if the registry is gone.
        registry["cache_ttl_seconds"] = 0
        if self.servers.registry:
            registry["path"] = _registry_url(self.servers.registry)
        if registry["path"].startswith(_POSTGRES):
            # A server asks the registry once per bundle, so it keeps no idle connection, which might be dead by then.
            options = {"poolclass": NullPool, "connect_args": {"connect_timeout": _REGISTRY_SECONDS}}
            registry["sqlalchemy_config_kwargs"] = options
        if online["type"] == "redis":
            address = self.servers.redis or online["connection_string"]
            online["connection_string"] = _with_limits(connection_string(address), seconds)


def connection_string(address: str) -> str:
    """Return Feast's form of a Redis address, `host:port,option=value,...`, from a URL or from that form.

    Raises:
        UserError: the URL is not a Redis URL, or its password cannot be written in that form.
    """
    if "://" not in address:
        return address
    url = urlsplit(address)
    database = url.path.removeprefix("/") or "0"
    if url.scheme not in {"redis", "rediss"} or not url.hostname or not database.isdigit():
        raise UserError("REDIS is not a valid address", fix="write redis://[user:password@]host:port/database")
    if "," in unquote(url.password or "") + unquote(url.username or ""):
        raise UserError(
            "Feast does not support a Redis password with a comma", where="REDIS", fix="choose another password"
        )
    options = {"db": int(database), "username": url.username, "password": url.password}
    parts = [f"{url.hostname}:{url.port or 6379}"]
    parts += [f"{name}={json.dumps(_plain(value))}" for name, value in options.items() if value not in (None, "")]
    return ",".join([*parts, "ssl=true"] if url.scheme == "rediss" else parts)


def _plain(value: str | int) -> str | int:
    return unquote(value) if isinstance(value, str) else value


def _with_limits(connection: str, seconds: float) -> str:
    """Add timeouts, without which a Redis that is down delays a request for seconds; the address's own options win."""
    limits = {"socket_timeout": seconds, "socket_connect_timeout": seconds, "retry": "null"}
    given = {part.partition("=")[0] for part in connection.split(",")}
    return ",".join([connection, *(f"{name}={value}" for name, value in limits.items() if name not in given)])


def _registry_url(url: str) -> str:
    for scheme in ("postgres://", "postgresql://"):
        if url.startswith(scheme):
            return _POSTGRES + url.removeprefix(scheme)
    return url


@contextmanager
def file_lock(path: Path, *, otherwise: UserError | None = None) -> Iterator[None]:
    """Hold a lock that ends with the process; wait for it, or raise `otherwise` if it is taken."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | (fcntl.LOCK_NB if otherwise else 0))
        except BlockingIOError:
            assert otherwise
            raise otherwise from None
        yield
