"""A connection that a thread asks and waits on, and the pool of those that are free.

A reply is found by its place alone, so whatever comes between a command and the end of its reply (a timeout, an
interrupt, bytes that are no reply) closes the connection: it is never given to another caller.
"""

from __future__ import annotations

import os
import select
import socket
import ssl
import struct
import weakref
from collections.abc import Callable, Sequence
from contextlib import suppress
from time import monotonic
from typing import Any

from banshee_memory.hot.faults import LATE, LostError, UnsentError
from banshee_memory.hot.replies import INCOMPLETE, LOSSES, MORE, Diverting, new_reader, pack

_BUFFER = 65_536
_IDLE = 0.01
"""Seconds after which the server may have hung up unnoticed; looking costs as much as a tenth of a call."""
TRUSTED = 5.0
"""Seconds after which a connection asks again, in a round trip, which server it leads to: one that was demoted may keep
its clients, and serve them what it has."""


class Connection:
    """One connection to Redis, for one thread at a time."""

    __slots__ = (
        "__weakref__",
        "_buffer",
        "_feed",
        "_gets",
        "_has_data",
        "_reader",
        "_receive",
        "_send",
        "_socket",
        "_timeout",
        "met",
        "used",
    )

    def __init__(self, opened: socket.socket, timeout: float) -> None:
        self._socket = opened
        self._timeout = timeout
        self._buffer = bytearray(_BUFFER)
        self._reader = new_reader()
        self._send, self._receive = opened.sendall, opened.recv_into
        self._feed, self._gets, self._has_data = self._reader.feed, self._reader.gets, self._reader.has_data
        self.used = self.met = monotonic()
        """When it was last asked; and when it was last known to lead to the server that is written to."""
        _connections.add(self)
        _limit(opened, timeout)

    def __del__(self) -> None:
        self.close()

    def ask(self, command: tuple[Any, ...] | bytes, replies: int = 1) -> Any:
        """Sends a command and gives its reply; an error of the server as a `ServerError`. LostError: it is closed.

        Where the bytes are several commands, so many `replies` are a list."""
        packed = command if type(command) is bytes else pack(command)
        try:
            try:
                self._send(packed)
            except ConnectionError as exc:
                self.close()
                raise UnsentError(str(exc)) from exc
            self._feed(self._buffer, 0, self._receive(self._buffer))
            reply = self._gets()
            if reply is INCOMPLETE:
                reply = self._rest()
            if replies > 1:
                reply = self._more(reply, replies)
            if self._has_data():
                raise IndexError(MORE)
        except LOSSES as exc:
            self.close()
            raise LostError(_reason(exc)) from exc
        except BaseException:
            self.close()
            raise
        return reply

    def _more(self, first: Any, count: int) -> list[Any]:
        """The replies after the first, too."""
        replies = [first]
        for _ in range(1, count):
            reply = self._gets()
            replies.append(self._rest() if reply is INCOMPLETE else reply)
        return replies

    def ask_all(self, commands: Sequence[tuple[Any, ...] | bytes]) -> list[Any]:
        """Sends commands in one packet and gives all replies, errors among them."""
        packed = b"".join(map(pack, commands))
        try:
            try:
                sent = self._socket.send(packed)
            except ConnectionError as exc:
                self.close()
                raise UnsentError(str(exc)) from exc
            if sent < len(packed):
                self._send(memoryview(packed)[sent:])
            reply = self._gets()
            replies = self._more(self._rest() if reply is INCOMPLETE else reply, len(commands))
            if self._has_data():
                raise IndexError(MORE)
        except LOSSES as exc:
            self.close()
            raise LostError(_reason(exc)) from exc
        except BaseException:
            self.close()
            raise
        return replies

    def _rest(self) -> Any:
        """Receives until a reply is whole. One that comes in drops has no longer for it than one that does not come."""
        deadline = monotonic() + self._timeout
        while True:
            size = self._receive(self._buffer)
            if not size:
                raise ConnectionResetError("it closed the connection")
            self._feed(self._buffer, 0, size)
            reply = self._gets()
            if reply is not INCOMPLETE:
                return reply
            if monotonic() > deadline:
                raise TimeoutError

    def is_usable(self) -> bool:
        """Whether the server has neither hung up nor said anything that nobody asked for."""
        if self._socket.fileno() < 0:
            return False
        return not self._is_pending() and not self.is_spoken_to(0)

    # --- when the server speaks unasked ---

    def divert(self, heard: Callable[[Any], None]) -> None:
        """From now on what the server says by itself (RESP3) goes there."""
        self._reader = Diverting(self._reader, heard)
        self._feed, self._gets, self._has_data = self._reader.feed, self._reader.gets, self._reader.has_data

    def is_spoken_to(self, seconds: float) -> bool:
        """Whether something came within that time; also an end, which another thread may have made."""
        number = self._socket.fileno()
        if number < 0:
            return True
        poll = select.poll()
        poll.register(number, select.POLLIN)
        return bool(poll.poll(seconds * 1_000))

    def take_in(self) -> None:
        """Reads what the server said by itself, if there is any. LostError: it is no more use."""
        try:
            while self._is_pending() or self.is_spoken_to(0):
                size = self._receive(self._buffer)
                if not size:
                    raise ConnectionResetError("it closed the connection")
                self._feed(self._buffer, 0, size)
                if self._reader.has_data():
                    raise IndexError(MORE)
        except LOSSES as exc:
            raise LostError(_reason(exc)) from exc

    def _is_pending(self) -> bool:
        return isinstance(self._socket, ssl.SSLSocket) and bool(self._socket.pending())

    def hang_up(self) -> None:
        """Ends it also for a thread that waits for it."""
        with suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        """Closes it, without a word to the server: in a forked child the parent goes on using it."""
        self._socket.close()


def _reason(exc: Exception) -> str:
    if isinstance(exc, TimeoutError | BlockingIOError):
        return LATE
    return str(exc) if isinstance(exc, OSError) else f"it sent what is no reply ({exc})"


def _limit(opened: socket.socket, timeout: float) -> None:
    """Bounds each wait for the server. The kernel's own limit saves a poll before each call; TLS cannot use it."""
    if isinstance(opened, ssl.SSLSocket):
        opened.settimeout(timeout)
        return
    opened.settimeout(None)
    limit = struct.pack("ll", int(timeout), int(timeout % 1 * 1e6))
    for option in (socket.SO_RCVTIMEO, socket.SO_SNDTIMEO):
        opened.setsockopt(socket.SOL_SOCKET, option, limit)


class Pool:
    """Connections that nobody uses at the moment; as many as threads ever called at one time."""

    def __init__(self, opened: Callable[[], Connection], is_right: Callable[[Connection], bool]) -> None:
        self._opened = opened
        self._is_right = is_right
        self._free: list[Connection] = []
        _pools.add(self)

    def ask(self, command: tuple[Any, ...] | bytes, replies: int = 1) -> Any:
        """One command on a free connection; see `Connection.ask`."""
        free = self._free
        try:
            connection = free.pop()
        except IndexError:
            connection = self._opened()
        else:
            now = monotonic()
            if now - connection.used < _IDLE and now - connection.met < TRUSTED:
                connection.used = now
            else:
                free.append(connection)
                connection = self._taken(free)
        try:
            reply = connection.ask(command, replies)
        except UnsentError:
            free, connection = self._anew()
            reply = connection.ask(command, replies)
        free.append(connection)
        return reply

    def ask_all(self, commands: Sequence[tuple[Any, ...] | bytes]) -> list[Any]:
        """Several in one packet; see `Connection.ask_all`."""
        free = self._free
        connection = self._taken(free)
        try:
            replies = connection.ask_all(commands)
        except UnsentError:
            free, connection = self._anew()
            replies = connection.ask_all(commands)
        free.append(connection)
        return replies

    def _anew(self) -> tuple[list[Connection], Connection]:
        """A new connection and where it belongs: those that are free are as old as the one to which nobody listened."""
        self.close()
        return self._free, self._taken(self._free)

    def _taken(self, free: list[Connection]) -> Connection:
        """A connection that is the caller's until it puts it back; one that failed is not put back."""
        now = monotonic()
        while True:
            try:
                connection = free.pop()
            except IndexError:
                return self._opened()
            if now - connection.used < _IDLE or connection.is_usable():
                connection.used = now
                if now - connection.met < TRUSTED or self._is_met(connection, now):
                    return connection
            connection.close()

    def _is_met(self, connection: Connection, now: float) -> bool:
        """Whether it leads to the server that is written to, still; LostError if that does not answer."""
        try:
            is_right = self._is_right(connection)
        except UnsentError:
            return False
        connection.met = now
        return is_right

    def close(self) -> None:
        """Closes those that are free. One in use goes when its call is over: the list it returns to is gone."""
        free, self._free = self._free, []
        for connection in free:
            connection.close()

    def forget(self) -> None:
        """In a forked child: all are the parent's."""
        self._free = []


_pools: weakref.WeakSet[Pool] = weakref.WeakSet()
_connections: weakref.WeakSet[Connection] = weakref.WeakSet()


def _forget_all() -> None:
    """In a forked child: also those of no pool, and one that this thread was just using."""
    for pool in _pools:
        pool.forget()
    for connection in _connections:
        connection.close()


os.register_at_fork(after_in_child=_forget_all)
