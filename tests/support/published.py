"""A feature store after a push, made once and copied for every test, on SQLite or Redis."""

import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from elcrec.adapters.feast_config import Servers
from elcrec.adapters.feast_store import FeastStore
from elcrec.serving.ports import FeatureTables
from tests.support.servers import RedisServer

REPOSITORY = Path(__file__).parents[2] / "features"
SERVICE = "elcrec_v1"


@dataclass(frozen=True, kw_only=True)
class Published:
    """The store's folder, and on Redis the server and its content."""

    folder: Path
    servers: Servers
    redis: RedisServer | None
    contents: dict[bytes, bytes]

    @classmethod
    def push(
        cls, folder: Path, tables: FeatureTables, *, redis: RedisServer | None = None, servers: Servers | None = None
    ) -> Self:
        """Push to a new store; `servers` names `redis` where that is given."""
        servers = servers or Servers()
        FeastStore(folder, REPOSITORY, servers).publish(tables, service=SERVICE)
        contents = {key: redis.client.dump(key) for key in redis.client.scan_iter("*")} if redis else {}
        return cls(folder=folder, servers=servers, redis=redis, contents=contents)

    def copied(self, folder: Path) -> FeastStore:
        """Return a store of its own in `folder`; on Redis it takes the place of whatever was there."""
        if self.redis is not None:
            self.redis.client.flushall()
            for key, value in self.contents.items():
                self.redis.client.restore(key, 0, value)
        return FeastStore(shutil.copytree(self.folder, folder), REPOSITORY, self.servers)
