"""A far-away host on one machine: a TCP proxy on loopback that delays what passes, without holding up throughput."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Iterator


class _Proxy:
    def __init__(self, address: str, port: int, trip: float) -> None:
        self._address, self._port = address, port
        self._trip = trip
        self._tasks: set[asyncio.Task[None]] = set()

    async def meet(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One connection. The kernel has accepted it already, so the handshake's one and a half trips are paid here."""
        await asyncio.sleep(1.5 * self._trip)
        there_reader, there_writer = await asyncio.open_connection(self._address, self._port)
        for source, sink in ((reader, there_writer), (there_reader, writer)):
            task = asyncio.create_task(self._carry(source, sink))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def end(self) -> None:
        """Drops the connections that are left."""
        left = list(self._tasks)
        for task in left:
            task.cancel()
        await asyncio.gather(*left, return_exceptions=True)

    async def _carry(self, source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
        """Every piece arrives half a trip after it was sent; the next one is read meanwhile."""
        loop = asyncio.get_running_loop()
        with contextlib.suppress(ConnectionError):
            while piece := await source.read(1 << 16):
                loop.call_later(self._trip / 2, _pass_on, sink, piece)
        await asyncio.sleep(self._trip / 2)
        with contextlib.suppress(ConnectionError, OSError, RuntimeError):
            sink.close()


def _pass_on(sink: asyncio.StreamWriter, piece: bytes) -> None:
    if not sink.is_closing():
        sink.write(piece)


@contextlib.contextmanager
def away(address: str, port: int, trip: float) -> Iterator[int]:
    """A port on 127.0.0.1 behind which `address` is `trip` seconds (there and back) farther away."""
    loop = asyncio.new_event_loop()
    proxy = _Proxy(address, port, trip)
    server = loop.run_until_complete(asyncio.start_server(proxy.meet, "127.0.0.1", 0))
    thread = threading.Thread(target=loop.run_forever, daemon=True)
    thread.start()
    try:
        yield int(server.sockets[0].getsockname()[1])
    finally:
        loop.call_soon_threadsafe(server.close)
        asyncio.run_coroutine_threadsafe(proxy.end(), loop).result(5)
        loop.call_soon_threadsafe(loop.stop)
        thread.join(5)
        loop.close()
