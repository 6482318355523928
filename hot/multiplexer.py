"""A connection that all tasks of an event loop share: commands go out as they come, replies come back in that order.

Each command waits in a queue, and a reply belongs to whoever is first in it. A caller that was cancelled stays in the
queue, so its reply is read and dropped. When replies cannot be matched any more (a timeout, bytes that are no reply,
one too many), the connection ends and everybody in the queue is told.
"""

from __future__ import annotations

import asyncio
import os
import weakref
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any

from banshee_memory.hot.faults import LATE, LostError
from banshee_memory.hot.replies import INCOMPLETE, LOSSES, MORE, Diverting, new_reader, pack

_BUFFER = 65_536
_LOOKS = 4
"""How often the watchdog looks within the timeout."""


class _Batch:
    """A caller that waits for several replies."""

    __slots__ = ("future", "missing", "replies")

    def __init__(self, future: asyncio.Future[Any], missing: int) -> None:
        self.future = future
        self.missing = missing
        self.replies: list[Any] = []

    def done(self) -> bool:
        """Whether nobody waits any more."""
        return self.future.done()

    def set_exception(self, exc: Exception) -> None:
        """There will be no more replies."""
        self.future.set_exception(exc)


class Multiplexer(asyncio.BufferedProtocol):
    """One connection to Redis, for the tasks of the loop it was opened in."""

    def __init__(self, writer: asyncio.StreamWriter, transport: asyncio.WriteTransport, timeout: float) -> None:
        self.loop = asyncio.get_running_loop()
        self.lost: LostError | None = None
        """Why it can take no more commands."""
        self.retired = False
        self.when_lost: Callable[[], None] | None = None
        """Called when it ends."""
        self._writer = writer  # closes the transport when it goes
        self._transport = transport
        self._write = transport.write
        self._future = self.loop.create_future
        self._buffer = bytearray(_BUFFER)
        self._view = memoryview(self._buffer)
        self._reader = new_reader()
        self._waiting: deque[asyncio.Future[Any] | _Batch] = deque()
        self._unsent: list[bytes] = []
        self._room: asyncio.Future[None] | None = None
        self._every = timeout / _LOOKS
        self._watchdog: asyncio.TimerHandle | None = None
        self._answered = 0
        self._marks: deque[int] = deque(maxlen=_LOOKS)
        transport.set_protocol(self)
        _multiplexers.add(self)

    # --- asking ---

    def ask(self, packed: bytes, replies: int = 1) -> asyncio.Future[Any]:
        """Sends a command; the future is its reply, an error of the server as a `ServerError`.

        Where the bytes are several commands, so many `replies` are a list."""
        if self.lost is not None:
            raise self.lost
        future = self._future()
        waiter = future if replies == 1 else _Batch(future, replies)
        if self._waiting or self._watchdog is None:
            self._enqueue(packed, waiter)
        else:  # the same for the only one, as most are
            self._waiting.append(waiter)
            self._write(packed)
        return future

    def ask_all(self, commands: Sequence[tuple[Any, ...] | bytes]) -> asyncio.Future[list[Any]]:
        """Sends commands in one packet; the future is all replies, errors among them."""
        if self.lost is not None:
            raise self.lost
        future = self._future()
        self._enqueue(b"".join(map(pack, commands)), _Batch(future, len(commands)))
        return future

    def _enqueue(self, packed: bytes, waiter: asyncio.Future[Any] | _Batch) -> None:
        """The first goes at once; what other tasks ask for in the same turn of the loop goes together after it."""
        waiting = self._waiting
        if not waiting:
            waiting.append(waiter)
            self._write(packed)
        else:
            waiting.append(waiter)
            if not self._unsent:
                self.loop.call_soon(self._send_unsent)
            self._unsent.append(packed)
        if self._watchdog is None:
            self._watchdog = self.loop.call_later(self._every, self._look)

    def _send_unsent(self) -> None:
        unsent, self._unsent = self._unsent, []
        if self.lost is None:
            self._write(b"".join(unsent))

    def divert(self, heard: Callable[[Any], None]) -> None:
        """From now on what the server says by itself (RESP3) goes there."""
        self._reader = Diverting(self._reader, heard)

    @property
    def is_full(self) -> bool:
        """Whether the server takes less than is asked: who asks should wait for `room` first."""
        return self._room is not None

    def is_alive(self) -> bool:
        """Whether it takes commands of tasks of the running loop."""
        return self.lost is None and not self.retired and self.loop is asyncio.get_running_loop()

    def is_usable(self) -> bool:
        """Whether it is alive and has room."""
        return self._room is None and self.lost is None and not self.retired and self.loop is asyncio.get_running_loop()

    async def room(self) -> None:
        """Returns when the server took what was asked, or the connection is lost."""
        while self._room is not None:
            await asyncio.shield(self._room)

    # --- what the transport calls ---

    def pause_writing(self) -> None:
        """The transport holds more than it wants to."""
        if self._room is None:
            self._room = self._future()

    def resume_writing(self) -> None:
        """The transport has room again."""
        room, self._room = self._room, None
        if room is not None:
            room.set_result(None)

    def get_buffer(self, sizehint: int) -> memoryview:
        """Where to receive to."""
        return self._view

    def buffer_updated(self, nbytes: int) -> None:
        """Gives each reply that is whole to who is first in the queue."""
        waiting = self._waiting
        before = len(waiting)
        try:
            self._reader.feed(self._buffer, 0, nbytes)
            self._give()
        except LOSSES as exc:
            self.end(f"it sent {MORE}" if isinstance(exc, IndexError) else f"it sent what is no reply ({exc})")
        self._answered += before - len(waiting)
        if self.retired and not waiting:
            self.end("it was retired")

    def _give(self) -> None:
        waiting, gets = self._waiting, self._reader.gets
        while waiting:
            if (reply := gets()) is INCOMPLETE:
                return
            waiter = waiting[0]
            if type(waiter) is _Batch:
                self._add(waiter, reply)
            else:
                waiting.popleft()
                if not waiter.done():
                    waiter.set_result(reply)  # type: ignore[union-attr]
        if self._reader.has_data():  # the first half of what nobody waits for would begin the reply to the next call
            raise IndexError(MORE)

    def _add(self, batch: _Batch, reply: Any) -> None:
        batch.replies.append(reply)
        if len(batch.replies) == batch.missing:
            self._waiting.popleft()
            if not batch.future.done():
                batch.future.set_result(batch.replies)

    def eof_received(self) -> None:
        """The server hung up; the transport closes itself."""

    def connection_lost(self, exc: Exception | None) -> None:
        """The transport is closed."""
        self.end("it closed the connection" if exc is None else str(exc))

    # --- the end ---

    def end(self, why: str) -> None:
        """Closes the connection at once and tells everybody who waits."""
        if self.lost is not None:
            return
        self.lost = LostError(why)
        self._transport.abort()
        if self._watchdog is not None:
            self._watchdog.cancel()
        self.resume_writing()
        if self.when_lost is not None:
            self.when_lost()
        waiting, self._waiting = self._waiting, deque()
        for waiter in waiting:
            if not waiter.done():
                waiter.set_exception(LostError(why))

    async def aclose(self) -> None:
        """Closes it, and returns when the socket is closed."""
        self.end("it was closed")
        await asyncio.sleep(0)

    def retire(self) -> None:
        """Takes no more commands, and ends once all that wait have their replies."""
        self.retired = True
        if not self._waiting:
            self.end("it was retired")

    def forget(self) -> None:
        """In a forked child: the socket is the parent's, and so is whatever registered it for events."""
        self.lost = LostError("it belongs to the process that this one was forked from")

    # --- the watchdog ---

    def _look(self) -> None:
        """Ends the connection if what was asked a timeout ago has no answer. Counts looks, not time: a loop that was
        held up looks once, and reads what came meanwhile before it looks again."""
        marks, waiting = self._marks, self._waiting
        if not waiting:
            self._watchdog = None
            marks.clear()
            return
        if len(marks) == _LOOKS and self._answered < marks[0]:
            self.end(LATE)
            return
        marks.append(self._answered + len(waiting))
        self._watchdog = self.loop.call_later(self._every, self._look)


_multiplexers: weakref.WeakSet[Multiplexer] = weakref.WeakSet()


def _forget_all() -> None:
    for multiplexer in _multiplexers:
        multiplexer.forget()


os.register_at_fork(after_in_child=_forget_all)
