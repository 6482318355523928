"""Replies that a client keeps for as long as nobody has said that they are outdated. Pure: who asks and who listens to
the server is in `tracking.py`. Safe to share between threads.

A reply is kept under the key that it tells of. Who asks lays a mark at the key before the command is sent; whoever says
that the key has changed takes away the mark with what is kept; a reply is kept only if its mark still lies there. So it
does not matter which comes first, a reply or the word that it is outdated, nor on which connections they come.
"""

from __future__ import annotations

import os
import threading
import weakref
from collections.abc import Callable, Iterable, Sequence
from time import monotonic
from typing import Any, Final, NamedTuple

from banshee_memory.hot.calls import VERSION, Call
from banshee_memory.hot.wire import expires

_AGE = 60.0
"""Seconds after which the server is asked again: its clock may have been set, and ours runs a little otherwise."""
_PER_REPLY = 200
"""Bytes that a reply costs besides its own, about."""


class _Absent:
    """No reply can look like it."""


ABSENT: Final = _Absent()
"""Nothing is kept."""


class Mark:
    """Lies at a key while somebody waits for a reply that tells of it."""

    __slots__ = ("waiting",)

    def __init__(self) -> None:
        self.waiting = 0


class Told(NamedTuple):
    """A command as it is sent; the one key that its reply tells of (its name, if there is none); what may be kept."""

    sent: Any
    key: str
    source: _Source


class Marked(NamedTuple):
    """A question under way, with the marks that lie at its keys."""

    told: Sequence[Told]
    marks: Sequence[Mark]


class _Kept:
    """A reply. `clock`: it is the server's time, or begins with it, and that goes on."""

    __slots__ = ("clock", "entry", "received", "reply", "until")

    def __init__(self, entry: _Entry, reply: Any, received: float, *, clock: bool) -> None:
        self.entry = entry
        self.reply = reply
        self.received = received
        self.until = received + _AGE
        self.clock = clock


class _Entry:
    """What is kept of a key: the replies to which commands, their size, and whether they were used lately."""

    __slots__ = ("sent", "size", "used")

    def __init__(self) -> None:
        self.sent: list[Any] = []
        self.size = 0
        self.used = False


class Cache:
    """Kept replies, of at most so many keys and bytes."""

    def __init__(self, entries: int, size: int, clock: Callable[[], float] = monotonic) -> None:
        self.generation = 0
        """Grows whenever all is lost: marks of an earlier one are void."""
        self._most = entries
        self._most_bytes = size
        self._clock = clock
        self._lock = threading.Lock()
        self._replies: dict[Any, _Kept] = {}
        self._entries: dict[str, _Entry] = {}
        self._marks: dict[str, Mark] = {}
        self._bytes = 0
        _caches.add(self)

    def find(self, sent: Any) -> Any:
        """The reply to a command as the server would give it now, else `ABSENT`."""
        kept = self._replies.get(sent)
        if kept is None:
            return ABSENT
        now = self._clock()
        if now > kept.until:
            return ABSENT
        kept.entry.used = True
        return _later(kept.reply, int((now - kept.received) * 1e6)) if kept.clock else kept.reply

    def ask(self, told: Sequence[Told], generation: int) -> Marked | None:
        """Lays marks, before these commands are sent; None: all was lost since that generation. To be ended."""
        with self._lock:
            if generation != self.generation:
                return None
            marks = [self._marks.setdefault(one.key, Mark()) for one in told]
            for mark in marks:
                mark.waiting += 1
        return Marked(told, marks)

    def answer(self, marked: Marked, replies: Sequence[Any]) -> None:
        """Keeps replies that may be kept, and whose keys nobody has said to have changed since they were asked for."""
        received = self._clock()
        with self._lock:
            for one, mark, reply in zip(*marked, replies, strict=True):
                if self._marks.get(one.key) is mark and one.source.may_be_kept(reply):
                    self._keep(one, reply, received)
            while len(self._entries) > self._most or self._bytes > self._most_bytes:
                self._make_room()

    def end(self, marked: Marked) -> None:
        """Takes back the marks of a question, whatever became of it."""
        with self._lock:
            for one, mark in zip(*marked, strict=True):
                mark.waiting -= 1
                if not mark.waiting and self._marks.get(one.key) is mark:
                    del self._marks[one.key]

    def drop(self, keys: Iterable[Any]) -> None:
        """These keys have changed."""
        with self._lock:
            for key in keys:
                name = key if isinstance(key, str) else key.decode(errors="surrogateescape")
                self._marks.pop(name, None)
                self._drop(name)

    def wrote(self, batch: Iterable[Call[Any]]) -> None:
        """This client may have changed the keys of these calls just now."""
        for call in batch:
            command = call.command
            if command[0] == "FCALL":
                self.drop(command[3 : 3 + int(command[2])])

    def lose(self, generation: int | None = None) -> None:
        """Nobody tells any more what has changed (of that generation, if it is still the one)."""
        with self._lock:
            if generation in (None, self.generation):
                self.generation += 1
                self._clear()

    def empty(self) -> None:
        """All keys have changed."""
        with self._lock:
            self._clear()

    def _clear(self) -> None:
        self._marks.clear()
        self._entries.clear()
        self._replies.clear()
        self._bytes = 0

    def forget(self) -> None:
        """In a forked child: nobody listens there, and a thread that is not there may hold the lock."""
        self._lock = threading.Lock()
        self.lose()

    def __len__(self) -> int:
        return len(self._entries)

    @property
    def size(self) -> int:
        """Bytes that are kept, about."""
        return self._bytes

    def _keep(self, one: Told, reply: Any, received: float) -> None:
        entry = self._entries.get(one.key)
        if entry is None:
            entry = self._entries[one.key] = _Entry()
        if one.sent not in entry.sent:
            entry.sent.append(one.sent)
            size = _PER_REPLY + len(one.key) + _size(reply)
            entry.size += size
            self._bytes += size
        self._replies[one.sent] = _Kept(entry, reply, received, clock=one.source.clock)

    def _drop(self, key: str) -> None:
        entry = self._entries.pop(key, None)
        if entry is not None:
            self._bytes -= entry.size
            for sent in entry.sent:
                del self._replies[sent]

    def _make_room(self) -> None:
        """Lets go of the key that came first of those that nobody used since they were last passed over."""
        while True:
            key, entry = next(iter(self._entries.items()))
            if not entry.used:
                self._drop(key)
                return
            entry.used = False
            self._entries[key] = self._entries.pop(key)


def _later(reply: Any, us: int) -> Any:
    """A reply that is the server's time, or begins with it, so many microseconds after."""
    return [int(reply[0]) + us, *reply[1:]] if isinstance(reply, list) else int(reply) + us


class _Source(NamedTuple):
    """A command whose reply tells of one key: where its name stands, which replies may be kept, and whether these are
    the server's time, or begin with it."""

    key_at: int
    may_be_kept: Callable[[Any], bool]
    clock: bool = False


def _is_state(reply: Any) -> bool:
    return isinstance(reply, list)


def _is_lasting_memory(reply: Any) -> bool:
    """Neither a miss, nor a lease, nor one that ends by itself: the server says that late."""
    return isinstance(reply, bytes) and reply[:1] in (b"P", b"A") and not expires(reply)


def _is_answer(reply: Any) -> bool:
    return reply is None or _is_lasting_memory(reply)


def _is_time(reply: Any) -> bool:
    return isinstance(reply, int)


def _is_there(reply: Any) -> bool:
    return isinstance(reply, bytes | list) and bool(reply)


_SOURCES = {
    f"banshee{VERSION}_load_state": _Source(3, _is_state, clock=True),
    f"banshee{VERSION}_get_memory": _Source(3, _is_answer),
    f"banshee{VERSION}_now": _Source(1, _is_time, clock=True),
    "GET": _Source(1, _is_lasting_memory),
    "LINDEX": _Source(1, _is_there),
    "LRANGE": _Source(1, _is_there),
    "ZRANGE": _Source(1, _is_there),
}


def told_by(call: Call[Any]) -> Told | None:
    """What a call asks for, if that is one key and may be kept."""
    command = call.command
    source = _SOURCES.get(str(command[1] if command[0] == "FCALL_RO" else command[0]))
    return None if source is None else Told(call.sent, str(command[source.key_at]), source)


def _size(reply: Any) -> int:
    if isinstance(reply, list):
        return sum(map(_size, reply))
    return 40 + len(reply) if isinstance(reply, bytes) else 40


_caches: weakref.WeakSet[Cache] = weakref.WeakSet()


def _forget_all() -> None:
    for cache in _caches:
        cache.forget()


os.register_at_fork(after_in_child=_forget_all)
