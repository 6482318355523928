"""The other end of a socket pair, which says what a test wants said, in just the pieces that it wants."""

from __future__ import annotations

import array
import asyncio
import fcntl
import queue
import socket
import termios
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress


class Peer:
    """For who waits: a thread that answers each packet of commands with the next script.

    Its sockets keep packets apart, so each is one piece of what the other side receives, whenever that looks."""

    def __init__(self, scripts: Sequence[Sequence[bytes]], *, hangs_up: bool = False) -> None:
        self.client, self._socket = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._scripts: queue.Queue[Sequence[bytes] | None] = queue.Queue()
        for script in (*scripts, None):
            self._scripts.put(script)
        self._hangs_up = hangs_up
        self._said: queue.Queue[None] = queue.Queue()
        self._thread = threading.Thread(target=self._answer)
        self._thread.start()

    def await_said(self) -> None:
        """Returns when it has said the next of its scripts, or has ended."""
        self._said.get(timeout=30)

    def close(self) -> None:
        """Ends it, whatever it is at, and says nothing more."""
        with suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)
        self._thread.join()
        self._socket.close()

    @property
    def is_left(self) -> bool:
        """Whether the client has closed its side."""
        self._socket.setblocking(False)
        try:
            while self._socket.recv(65_536):
                pass
        except BlockingIOError:
            return False
        except ConnectionError:
            return True
        return True

    def _answer(self) -> None:
        with suppress(OSError):
            while (script := self._scripts.get()) is not None and self._socket.recv(65_536):
                for piece in script:
                    self._socket.send(piece)
                self._said.put(None)
            if self._hangs_up:
                self._socket.shutdown(socket.SHUT_WR)
        self._said.put(None)


@contextmanager
def peers() -> Iterator[list[Peer]]:
    """Those that are put in are closed at the end."""
    every: list[Peer] = []
    try:
        yield every
    finally:
        for peer in every:
            peer.close()


async def happens(is_so: Callable[[], object]) -> None:
    """Lets others go on until it is so."""
    for _ in range(10_000_000):
        if is_so():
            return
        await asyncio.sleep(0)
    raise AssertionError("it never happens")


class AsyncPeer:
    """For tasks of its loop: says one piece after the other, each when the one before has been taken."""

    def __init__(self) -> None:
        self.client, self._socket = socket.socketpair()
        self._socket.setblocking(False)

    async def hear(self) -> None:
        """Returns when something was asked."""
        await asyncio.get_running_loop().sock_recv(self._socket, 65_536)

    async def say(self, pieces: Sequence[bytes]) -> None:
        """Returns when all is taken, or the client has hung up."""
        loop = asyncio.get_running_loop()
        with suppress(OSError):
            for piece in pieces:
                await loop.sock_sendall(self._socket, piece)
                await happens(lambda: not self._unread())

    def _unread(self) -> int:
        """How many bytes the client has not taken yet."""
        if self.client.fileno() < 0:
            return 0
        number = array.array("i", [0])
        fcntl.ioctl(self.client, termios.FIONREAD, number)
        return number[0]

    def hang_up(self) -> None:
        """It has nothing more to say."""
        with suppress(OSError):
            self._socket.shutdown(socket.SHUT_WR)

    @property
    def is_left(self) -> bool:
        """Whether the client has closed its side."""
        try:
            while self._socket.recv(65_536):
                pass
        except BlockingIOError:
            return False
        except ConnectionError:
            return True
        return True

    def close(self) -> None:
        """Its own side."""
        self._socket.close()
