"""A proxy before a real server: it holds replies back, chops them, says what nobody asked, hangs up."""

from __future__ import annotations

import asyncio
import random
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from pathlib import Path
from urllib.parse import quote, unquote, urlsplit

Mangle = Callable[[bytes], list[bytes]]


class Proxy:
    """What it does to replies can be changed at any time; what was sent is counted."""

    def __init__(self, server_url: str, folder: Path) -> None:
        self._server = unquote(urlsplit(server_url).path)
        self._socket = str(folder / "p")
        self.url = f"unix://{quote(self._socket)}"
        self.mangle: Mangle = lambda replies: [replies]
        self.held = asyncio.Event()
        """Replies go through while it is set."""
        self.held.set()
        self.asked = threading.Event()
        """Set by every command that came."""
        self._writers: list[asyncio.StreamWriter] = []
        self._tasks: set[asyncio.Task[None]] = set()

    @asynccontextmanager
    async def running(self) -> AsyncIterator[Proxy]:
        """In the running loop."""
        server = await asyncio.start_unix_server(self._serve, self._socket)
        try:
            yield self
        finally:
            server.close()
            self.cut()
            for task in self._tasks:
                task.cancel()
            await asyncio.gather(*self._tasks, return_exceptions=True)
            await asyncio.sleep(0)

    def say(self, unasked: bytes) -> None:
        """Bytes that no server sent, to all clients."""
        for writer in self._writers[::2]:
            writer.write(unasked)

    def cut(self) -> list[bytes]:
        """Hangs up on all clients; gives what is then left to say."""
        for writer in self._writers:
            writer.close()
        self._writers.clear()
        return []

    async def _serve(self, client: asyncio.StreamReader, to_client: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task
        self._tasks.add(task)
        server, to_server = await asyncio.open_unix_connection(self._server)
        self._writers += [to_client, to_server]
        both = asyncio.gather(self._forth(client, to_server), self._back(server, to_client))
        try:
            with suppress(ConnectionError, asyncio.CancelledError):
                await both
        finally:
            # Who ends one side with something unread resets it, and nothing else would tell the other side.
            to_client.close()
            to_server.close()
            both.cancel()

    async def _forth(self, client: asyncio.StreamReader, to_server: asyncio.StreamWriter) -> None:
        while commands := await client.read(65_536):
            self.asked.set()
            to_server.write(commands)
        to_server.close()

    async def _back(self, server: asyncio.StreamReader, to_client: asyncio.StreamWriter) -> None:
        while replies := await server.read(65_536):
            for part in self.mangle(replies):
                await self.held.wait()
                if to_client.is_closing():
                    return
                to_client.write(part)
                await asyncio.sleep(0)
        to_client.close()


def chopped(seed: int, most: int = 40) -> Mangle:
    """Replies in pieces of random sizes."""
    chance = random.Random(seed)

    def mangle(replies: bytes) -> list[bytes]:
        parts = []
        while replies:
            size = chance.randint(1, most)
            parts.append(replies[:size])
            replies = replies[size:]
        return parts

    return mangle


class ThreadedProxy:
    """The same, in a thread of its own, for clients that wait."""

    def __init__(self, proxy: Proxy, loop: asyncio.AbstractEventLoop) -> None:
        self.proxy = proxy
        self._loop = loop

    def do(self, action: Callable[[], object]) -> None:
        """Does something to the proxy, and returns when it is done."""
        done = threading.Event()

        def act() -> None:
            action()
            done.set()

        self._loop.call_soon_threadsafe(act)
        assert done.wait(10)


@contextmanager
def threaded(server_url: str, folder: Path) -> Iterator[ThreadedProxy]:
    """A proxy that serves while the block runs."""
    started: threading.Event = threading.Event()
    made: list[ThreadedProxy] = []
    ended: list[asyncio.Event] = []

    async def run() -> None:
        proxy = Proxy(server_url, folder)
        ended.append(asyncio.Event())
        async with proxy.running():
            made.append(ThreadedProxy(proxy, asyncio.get_running_loop()))
            started.set()
            await ended[0].wait()

    thread = threading.Thread(target=lambda: asyncio.run(run()))
    thread.start()
    assert started.wait(10)
    try:
        yield made[0]
    finally:
        made[0].do(ended[0].set)
        thread.join()
