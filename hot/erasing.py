"""The calls to Redis that forget an agent: see `lua/forgetting.lua`. Pure plans, like those of `calls.py`."""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple, TypeVar

from banshee_memory.hot.calls import VERSION, Argument, Call
from banshee_memory.hot.keys import AgentKeys
from banshee_memory.stamps import entry_id_of, stamp_of

T = TypeVar("T")
MOST_MEMBERS = 250
"""Memories that one call drops: Redis does nothing else meanwhile."""
_PAGE = 1_000
_ENTRIES = 200
_PAGE_BYTES = 1_000_000
_TIME = struct.Struct(">d")
_SPECIAL = frozenset(b"*?[]^-\\")


class Dropped(NamedTuple):
    """What went from Redis at one moment. `through`: all of it is stamped up to there; None: the index named others, so
    only memories went. `at_us`: when that was."""

    through: int | None
    gone: int
    at_us: int


class Page(NamedTuple):
    """A part of something that was walked along: where to go on (empty: that was all), and what was there."""

    cursor: bytes
    found: list[bytes]


class Erased(NamedTuple):
    """How far a stream was walked along (empty: to its end), and how many entries went."""

    after: bytes
    gone: int


def forget(keys: AgentKeys, tombstone: int, members: Sequence[bytes]) -> Call[Dropped]:
    """Drops an agent, all at once, if these are all members of its index."""
    at = (keys.state, keys.messages, keys.events, keys.memories, keys.log, keys.accesses, keys.wanted, keys.forgotten)
    args: list[Argument] = [keys.agent.bytes, entry_id_of(tombstone), *members]
    return _fcall("forget", (*at, *_memories(keys, members)), args, _dropped)


def _dropped(reply: Any) -> Dropped:
    return Dropped(stamp_of(reply[0]) if reply[0] else None, int(reply[1]), int(reply[2]))


def erase_keys(keys: AgentKeys, through: int, at_us: int, members: Sequence[bytes]) -> Call[tuple[int, bool]]:
    """Drops what is still there of a forgotten agent; gives how many keys held something, and whether a list is so long
    that it must be looked at again."""
    at = (keys.state, keys.messages, keys.events, keys.memories, keys.accesses)
    args: list[Argument] = [keys.agent.bytes, entry_id_of(through), at_us, *members]
    return _fcall("erase_keys", (*at, *_memories(keys, members)), args, lambda reply: (int(reply[0]), bool(reply[1])))


def erase_entries(keys: AgentKeys, stream: str, through: int, after: bytes) -> Call[Erased]:
    """Drops what a stream (log, dead letters, feed) holds of a forgotten agent, after that id and some entries on."""
    args: list[Argument] = [keys.agent.bytes, entry_id_of(through), after, _ENTRIES, _PAGE_BYTES]
    return _fcall("erase_entries", (stream,), args, lambda reply: Erased(bytes(reply[0]), int(reply[1])))


def _fcall(name: str, keys: Sequence[str | bytes], args: Iterable[Argument], decode: Callable[[Any], T]) -> Call[T]:
    return Call(("FCALL", f"banshee{VERSION}_{name}", len(keys), *keys, *args), decode)


def _memories(keys: AgentKeys, members: Iterable[bytes]) -> list[bytes]:
    return [keys.memory("").encode() + member for member in members]


def indexed(keys: AgentKeys) -> Call[list[bytes]]:
    """The members of the agent's index."""
    return Call(("ZRANGEBYSCORE", keys.memories, 0, "+inf"), list)


def memory_keys(keys: AgentKeys, cursor: bytes) -> Call[Page]:
    """Some members whose keys are there, indexed or not, leases included. Walks along all of Redis."""
    start = keys.memory("").encode()
    command = ("SCAN", cursor, "MATCH", _literally(start) + b"*", "COUNT", _PAGE)
    return Call(command, lambda reply: Page(_next(reply), [key[len(start) :] for key in reply[1]]))


def accessed_members(keys: AgentKeys, cursor: bytes) -> Call[Page]:
    """Some members of the agent among the shard's accesses."""
    command = ("SSCAN", keys.accesses, cursor, "MATCH", _literally(keys.agent.bytes) + b"*", "COUNT", _PAGE)
    return Call(command, lambda reply: Page(_next(reply), [name[16:] for name in reply[1]]))


def idempotency_fields(keys: AgentKeys, cursor: bytes, until_us: int) -> Call[Page]:
    """Some fields of the agent among the shard's idempotency keys, of calls made up to that time."""
    command = ("HSCAN", keys.idem, cursor, "MATCH", _literally(keys.agent.bytes) + b"*", "COUNT", _PAGE)

    def decode(reply: Any) -> Page:
        pairs = zip(reply[1][::2], reply[1][1::2], strict=True)
        return Page(_next(reply), [name for name, value in pairs if _TIME.unpack_from(value)[0] <= until_us])

    return Call(command, decode)


def drop_idempotency_fields(keys: AgentKeys, fields: Sequence[bytes]) -> Call[int]:
    """Forgets those calls; gives how many."""
    return Call(("HDEL", keys.idem, *fields), int)


def _next(reply: Any) -> bytes:
    return b"" if reply[0] == b"0" else bytes(reply[0])


def _literally(text: bytes) -> bytes:
    """A pattern that matches just these bytes."""
    return b"".join(b"\\" + bytes([byte]) if byte in _SPECIAL else bytes([byte]) for byte in text)
