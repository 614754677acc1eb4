"""Servers for the tests of several adapters."""

from collections.abc import Iterator

import pytest

from tests.support.servers import RedisServer, redis_server


@pytest.fixture(scope="module")
def server() -> Iterator[RedisServer]:
    with redis_server() as running:
        yield running
