"""A load generator as a separate process: `python -m benchmarks.load` reads a `Load` as JSON, prints measurements.

Open loop: requests are due at fixed times, and latency counts from the time a request was due, so that a server that
falls behind cannot hide it. Closed loop: every connection sends its next request when it has its answer.
"""

import asyncio
import sys
import time
from collections.abc import Iterator
from itertools import cycle

import msgspec
import numpy as np

from benchmarks.jobs import Result


class Load(msgspec.Struct, frozen=True, kw_only=True):
    """The load to send.

    Attributes:
        port: port of the server on this machine.
        users: users to request, in turn.
        seconds: duration, after a warm-up of a tenth of it.
        rate: requests per second (open loop); `None` for the closed loop.
        connections: number of connections.
    """

    port: int
    users: list[str]
    seconds: float
    rate: float | None
    connections: int


class _Connection:
    """A persistent connection, with just enough HTTP for answers with a length."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader, self._writer = reader, writer

    async def ask(self, request: bytes) -> bool:
        """Send a request; return whether the answer is a success."""
        self._writer.write(request)
        head = (await self._reader.readuntil(b"\r\n\r\n")).lower()
        length = int(head.partition(b"content-length: ")[2].partition(b"\r\n")[0])
        await self._reader.readexactly(length)
        return head.startswith(b"http/1.1 200")


class _Tally:
    """Latencies in seconds and failures, from `start` on."""

    def __init__(self, start: float) -> None:
        self.start, self.latencies, self.failed, self.last = start, list[float](), 0, start

    def add(self, due: float, *, success: bool) -> None:
        """Count one answer."""
        self.last = time.perf_counter()
        if due >= self.start:
            self.latencies.append(self.last - due)
            self.failed += not success


async def run(load: Load) -> Result:
    """Send the load; return its numbers."""
    connections = [_Connection(*await asyncio.open_connection("127.0.0.1", load.port)) for _ in range(load.connections)]
    requests = cycle([_request(user) for user in load.users])
    begun = time.perf_counter()
    tally = _Tally(begun + load.seconds / 10)
    end = tally.start + load.seconds
    if load.rate is None:
        await asyncio.gather(*(_closed(connection, requests, tally, end) for connection in connections))
    else:
        await _open(connections, requests, tally, begun, end, load.rate)
    latencies = np.array(tally.latencies) * 1000
    p50, p99 = np.percentile(latencies, (50, 99))
    return {
        "requests": len(latencies),
        "failed": tally.failed,
        "per_second": len(latencies) / (tally.last - tally.start),
        "p50_ms": float(p50),
        "p99_ms": float(p99),
        "client_cpu": time.process_time(),
    }


async def _closed(connection: _Connection, requests: Iterator[bytes], tally: _Tally, end: float) -> None:
    while (sent := time.perf_counter()) < end:
        tally.add(sent, success=await connection.ask(next(requests)))


async def _open(
    connections: list[_Connection], requests: Iterator[bytes], tally: _Tally, begun: float, end: float, rate: float
) -> None:
    free: asyncio.Queue[_Connection] = asyncio.Queue()
    for connection in connections:
        free.put_nowait(connection)

    async def one(due: float) -> None:
        connection = await free.get()
        tally.add(due, success=await connection.ask(next(requests)))
        free.put_nowait(connection)

    async with asyncio.TaskGroup() as group:
        for number in range(int((end - begun) * rate)):
            due = begun + number / rate
            await asyncio.sleep(max(0.0, due - time.perf_counter()))
            group.create_task(one(due))


def _request(user: str) -> bytes:
    body = msgspec.json.encode({"user_id": user, "k": 10})
    head = "POST /recommend HTTP/1.1\r\nhost: 127.0.0.1\r\ncontent-type: application/json\r\n"
    head += f"content-length: {len(body)}\r\n\r\n"
    return head.encode() + body


if __name__ == "__main__":
    print(msgspec.json.encode(asyncio.run(run(msgspec.json.decode(sys.stdin.buffer.read(), type=Load)))).decode())
