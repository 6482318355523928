"""The calls to Redis of a flush: what waits, and what was carried. See `lua/flush.lua` and `lua/settlement.lua`.

Pure plans, like those of `calls.py`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar
from uuid import UUID

from banshee_memory.hot import wire
from banshee_memory.hot.calls import VERSION, Argument, Call, fcall
from banshee_memory.hot.keys import AgentKeys, ShardKeys
from banshee_memory.stamps import stamp_of

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Entry:
    """An entry of a shard's log: kind (one letter), agent, payload; `raw` are its fields and values."""

    id: bytes
    raw: tuple[bytes, ...]

    @property
    def stamp(self) -> int:
        """Its id as a stamp."""
        return stamp_of(self.id)

    @property
    def kind(self) -> str:
        """M message, E event, S state, V memory, A amendment, F somebody forgotten, m and e elements again."""
        return chr(self._value(b"k")[0])

    @property
    def agent(self) -> UUID:
        """Whose it is."""
        return UUID(bytes=self._value(b"k")[1:])

    @property
    def payload(self) -> bytes:
        """What the kind says."""
        return self._value(b"p")

    @property
    def once(self) -> bytes | None:
        """The letter of the function and the idempotency key that it was called with, if it was with one."""
        return dict(zip(self.raw[::2], self.raw[1::2], strict=False)).get(b"i")

    @property
    def size(self) -> int:
        """Bytes of its fields and values."""
        return sum(map(len, self.raw))

    def _value(self, name: bytes) -> bytes:
        return self.raw[self.raw.index(name) + 1]


def entries_of(reply: Any) -> list[Entry]:
    """What XRANGE gives."""
    return [Entry(entry[0], tuple(entry[1] or ())) for entry in reply]


def log_head(keys: ShardKeys, count: int, size: int) -> Call[list[Entry]]:
    """The oldest entries of a shard's log, so many and of so many bytes at most (but one, whatever its size)."""
    command = ("FCALL_RO", f"banshee{VERSION}_log_head", 1, keys.log, count, size)
    return Call(command, entries_of)


def log_tail(keys: ShardKeys) -> Call[list[Entry]]:
    """The newest entry of a shard's log."""
    return Call(("XREVRANGE", keys.log, "+", "-", "COUNT", 1), entries_of)


def accessed(keys: ShardKeys, count: int) -> Call[list[bytes]]:
    """Some memories, as `<agent><member>`, that were read since they were last flushed."""
    return Call(("SRANDMEMBER", keys.accesses, count), list)


def accesses_waiting(keys: ShardKeys) -> Call[int]:
    """How many memories were read since they were last flushed."""
    return Call(("SCARD", keys.accesses), int)


@dataclass(slots=True)
class Settlement:
    """What a flush tells mark-clean about the keys it carried."""

    keys: list[str] = field(default_factory=list)
    args: list[Argument] = field(default_factory=list)

    def state(self, keys: AgentKeys, stamp: int, *, superseded: bool = False) -> None:
        """A state that was flushed with this stamp; `superseded`: PostgreSQL has another, which stays."""
        self.keys.append(keys.state)
        self.args += ["S" if superseded else "s", stamp.to_bytes(8, "big")]

    def history(self, key: str, cap: int) -> None:
        """A list some of which was flushed."""
        self.keys.append(key)
        self.args += ["h", cap]

    def memory(self, keys: AgentKeys, member: str, flushed: bytes, *, superseded: bool = False) -> None:
        """A memory that was flushed with this value; `superseded`: PostgreSQL has another, which stays."""
        self.keys += [keys.memory(member), keys.memories]
        self.args += ["M" if superseded else "m", keys.agent.bytes, member, flushed[: wire.MEMORY_FLUSHED]]

    def drop(self, key: str, element: bytes) -> None:
        """An element that becomes a dead letter, or is beyond retention."""
        self.keys.append(key)
        self.args += ["p", element]

    def forgotten_state(self, keys: AgentKeys, stamp: int) -> None:
        """A state that goes if it is not newer than the tombstone of its agent; so below."""
        self.keys.append(keys.state)
        self.args += ["fs", stamp.to_bytes(8, "big")]

    def forgotten_history(self, key: str, stamp: int) -> None:
        """A list of which goes what is not newer."""
        self.keys.append(key)
        self.args += ["fh", stamp.to_bytes(8, "big")]

    def forgotten_memory(self, keys: AgentKeys, member: str, stamp: int) -> None:
        """A memory that goes if it is not newer."""
        self.keys += [keys.memory(member), keys.memories]
        self.args += ["fm", keys.agent.bytes, member, stamp.to_bytes(8, "big")]

    def outdated(self, key: str, message: UUID, at_us: int) -> None:
        """A message of that time whose emotional context in PostgreSQL is newer than the one that was flushed."""
        self.keys.append(key)
        self.args += ["o", message.bytes, at_us]

    def unread(self, agent_member: bytes) -> None:
        """A memory that was read and cannot be carried."""
        self.args += ["x", agent_member[:16], agent_member[16:]]


def digest(entries: Iterable[Entry]) -> str:
    """SHA-1 over id, fields and values: what mark-clean compares the log with."""
    import hashlib  # which brings OpenSSL in, for who flushes

    hashed = hashlib.sha1(usedforsecurity=False)
    for entry in entries:
        hashed.update(entry.id)
        for part in entry.raw:
            hashed.update(part)
    return hashed.hexdigest()


def mark_clean(
    keys: ShardKeys,
    entries: Sequence[Entry],
    settlement: Settlement,
    ttl: float,
    dead: Mapping[bytes, str],
) -> Call[bool]:
    """Forgets entries that are committed; False: the log is not what was flushed, and nothing was done."""
    first, last = (entries[0].id, entries[-1].id) if entries else (b"", b"")
    letters = [word for entry_id, reason in dead.items() for word in (entry_id, reason)]
    args: list[Argument] = [first, last, digest(entries), int(ttl * 1000), len(dead), *letters, *settlement.args]
    at = (keys.log, keys.dead, keys.accesses, keys.stats, *settlement.keys)
    return fcall("mark_clean", at, args, lambda reply: reply != b"CHANGED")
