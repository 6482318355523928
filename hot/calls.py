"""Calls to Redis as pure plans: what to send, and what to make of the reply. Nothing here does I/O.

The functions are documented in `lua/README.md`; a plan is named like its function. Beside these are those of one
purpose each: `leases.py`, `flushing.py`, `failover.py`, `erasing.py`, `letters.py`; and the hottest, `packed.py`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Generic, NamedTuple, TypeVar
from uuid import UUID

import msgspec

from banshee_memory.emotions import Emotion, EmotionalState
from banshee_memory.hot import wire
from banshee_memory.hot.keys import (
    BARRIER,
    STORE,
    AgentKeys,
    ShardKeys,
    member_of,
    shard_in,
    shard_keys,
)
from banshee_memory.records import Pace, StoredMemory
from banshee_memory.stamps import Receipt, stamp_of, to_us, uuid_of

T = TypeVar("T")
Argument = str | bytes | int | float


class Call(msgspec.Struct, Generic[T], frozen=True, gc=False):
    """One round trip: a command and the reading of its reply."""

    sent: tuple[Argument, ...] | bytes
    """Its words, or these as they go over the connection: of the hottest calls most of that is made beforehand."""
    decode: Callable[[Any], T]
    replies: int = 1
    """To so many commands in one packet: then `decode` takes a list."""

    @property
    def command(self) -> tuple[Argument, ...]:
        """Its words."""
        if isinstance(self.sent, tuple):
            return self.sent
        from banshee_memory.hot.replies import words_of  # which is a driver, and nobody's first call

        return words_of(self.sent)

    @property
    def only_reads(self) -> bool:
        """Whether it is a function that writes nothing."""
        return self.command[0] == "FCALL_RO"


Miss = wire.Miss
MISS = wire.MISS
VERSION = 1
_MISS = b"MISS"


def fcall(
    name: str, keys: Sequence[str] | Sequence[bytes], args: Iterable[Argument], decode: Callable[[Any], T]
) -> Call[T]:
    return Call(("FCALL", f"banshee{VERSION}_{name}", len(keys), *keys, *args), decode)


def _once(
    name: str,
    keys: AgentKeys,
    at: Sequence[str],
    args: Sequence[Argument],
    decode: Callable[[Any], T],
    once: str | None,
) -> Call[T]:
    """A write that is done once for an idempotency key."""
    if once is None:
        return fcall(name, at, args, decode)
    return fcall(name, (*at, keys.idem), (*args, once), decode)


def fcall_ro(name: str, keys: Sequence[str], decode: Callable[[Any], T]) -> Call[T]:
    return Call(("FCALL_RO", f"banshee{VERSION}_{name}", len(keys), *keys), decode)


def _or_miss(decode: Callable[[Any], T]) -> Callable[[Any], T | Miss]:
    return lambda reply: MISS if reply == _MISS else decode(reply)


def same(reply: Any) -> Any:
    return reply


def accepted(reply: Any) -> bool:
    return bool(reply == b"OK")


# --- the server ---


def version() -> Call[tuple[int, ...]]:
    """The version of the library that is loaded."""
    return fcall_ro("version", (), lambda reply: tuple(int(part) for part in reply))


def now() -> Call[int]:
    """The clock of the hot tier, in microseconds since 1970."""
    return fcall_ro("now", (), int)


def server_time() -> Call[int]:
    """The same without the library, which costs less; where its clock is the server's, as it is but in a test build."""
    return Call(("TIME",), lambda reply: int(reply[0]) * 1_000_000 + int(reply[1]))


def fix_shards(shards: int) -> Call[int]:
    """Records the number of shards unless that was done."""
    return Call(("HSETNX", STORE, "shards", shards), int)


def fixed_shards() -> Call[int | None]:
    """The number of shards that the store was first used with; None: it was not."""
    return Call(("HGET", STORE, "shards"), lambda reply: None if reply is None else int(reply))


def note_pace(pace: Pace) -> Call[int]:
    """Leaves what a daemon measured for others to see."""
    return Call(("HSET", STORE, "pace", wire.pack(pace)), int)


def noted_pace() -> Call[Pace | None]:
    """What a daemon measured last."""
    return Call(("HGET", STORE, "pace"), lambda reply: None if reply is None else wire.pace_of(reply))


def configuration(*names: str) -> Call[dict[str, str]]:
    """Parameters of the server, by name; without those that it does not know."""
    return Call(("CONFIG", "GET", *names), _texts)


def _texts(flat: Any) -> dict[str, str]:
    words = [word.decode(errors="replace") for word in flat]
    return dict(zip(words[::2], words[1::2], strict=True))


# --- emotions ---


def load_state(keys: AgentKeys) -> Call[EmotionalState | Miss | None]:
    """What it feels now, by the clock of the hot store."""
    return fcall_ro("load_state", (keys.state,), wire.state_now)


def state_hash(keys: AgentKeys) -> Call[list[bytes]]:
    """The fields and values of its hash, undecayed; see `wire.state_of`."""
    return Call(("HGETALL", keys.state), same)


def save_state(keys: AgentKeys, state: EmotionalState, *, blind: bool = True) -> Call[int | Miss]:
    """Replaces its state. Gives the stamp. `blind`: also where it is not resident, instead of a miss."""
    args: list[Argument] = [keys.agent.bytes, to_us(state.last_updated)]
    for emotion, intensity in state.emotions.items():
        args += [emotion.value, repr(intensity)]
    for emotion, rate in state.decay_rates.items():
        if rate != emotion.rate:
            args += [f"{emotion.value}/rate", repr(rate)]
    if not blind:
        args += ["resident", "1"]
    return fcall("save_state", (keys.state, keys.log), args, _or_miss(stamp_of))


def set_temperament(
    keys: AgentKeys, absence: str, rates: Mapping[Emotion, float | None]
) -> Call[EmotionalState | Miss | None]:
    """Its own rates (None: the emotion's) and what being away means (`""`: as it is); gives what it feels."""
    args: list[Argument] = [keys.agent.bytes, absence]
    for emotion, rate in rates.items():
        args += [emotion.value, "" if rate is None else repr(rate)]
    return fcall("set_temperament", (keys.state, keys.log), args, wire.state_now)


def set_presence(keys: AgentKeys, presence: str) -> Call[bool | Miss]:
    """It goes `away` or is `here`; False where that changes nothing for it."""
    return fcall("set_presence", (keys.state, keys.log), (keys.agent.bytes, presence), _or_miss(bool))


def _amounts(changes: Mapping[Emotion, float]) -> list[Argument]:
    return [word for emotion, amount in changes.items() for word in (emotion.value, wire.number(amount))]


def update_emotions(
    keys: AgentKeys, changes: Mapping[Emotion, float], mode: str, once: str | None = None
) -> Call[EmotionalState | Miss | None]:
    """Decays, applies, clamps, drops; gives what is now true."""
    args: list[Argument] = [keys.agent.bytes, mode, *_amounts(changes)]
    return _once("update_emotions", keys, (keys.state, keys.log), args, wire.state_now, once)


def save_event(
    keys: AgentKeys,
    body: bytes,
    changes: Mapping[Emotion, float],
    mode: str,
    occurred_us: int | None,
    once: str | None = None,
) -> Call[wire.SettledEvent | Miss]:
    """Records what happened and what it made the agent feel."""
    args: list[Argument] = [keys.agent.bytes, mode, _time(occurred_us), body, *_amounts(changes)]
    decode = _or_miss(lambda element: wire.event_of(keys.agent, element))
    return _once("save_event", keys, (keys.events, keys.log, keys.state, keys.feed), args, decode, once)


def _time(us: int | None) -> Argument:
    return "" if us is None else us


# --- histories ---


def append_messages(
    keys: AgentKeys, messages: Sequence[tuple[int | None, bool, bytes]], once: str | None = None
) -> Call[list[UUID] | Miss]:
    """Appends (own time in microseconds or None, with what is felt or not, body); gives the id of each."""
    args: list[Argument] = [keys.agent.bytes]
    for at_us, felt, body in messages:
        args += [_time(at_us), "1" if felt else "", body]
    return _once("append_messages", keys, (keys.messages, keys.log, keys.state), args, _or_miss(_ids), once)


def _ids(reply: list[Any]) -> list[UUID]:
    return [uuid_of(sixteen) for sixteen in reply[::3]]


def history_end(key: str, limit: int) -> list[Call[Any]]:
    """A list's header and its last `limit` elements, in one round trip; put together by `end_of`."""
    header: Call[Any] = Call(("LINDEX", key, 0), same)
    return [header, Call(("LRANGE", key, -limit, -1), same), header]


def end_of(replies: Sequence[Any]) -> wire.History:
    """What `history_end` gave. The header was read on both sides of the elements: where something left the list or was
    offered to it in between, it speaks of another list than they are of, and counts as none."""
    before, elements, after = replies
    if before is None or after is None:
        return wire.History(None, [])
    last = wire.header_of(after)
    if last is not None and before != after:
        first = wire.header_of(before)
        last = last if first is not None and first.generation == last.generation else None
    return wire.History(last, wire.history_of(elements).elements)


def whole_history(key: str) -> Call[wire.History]:
    """A list with its header; empty where it is not resident."""
    return Call(("LRANGE", key, 0, -1), wire.history_of)


def amend_message(keys: AgentKeys, before: bytes, after: bytes, amendment: wire.Amendment) -> Call[bool]:
    """Replaces an element (`b""`: it is not resident) and logs why; False: it is not in the list any more."""
    args = (keys.agent.bytes, before, after, wire.pack(amendment))
    return fcall("amend_message", (keys.messages, keys.log, keys.forgotten), args, accepted)


# --- memories ---


def _memory(keys: AgentKeys, member: str) -> Callable[[Any], StoredMemory | Miss | None]:
    decode = _or_miss(lambda raw: wire.memory_of(keys.agent, member, raw))
    return lambda reply: None if reply is None else decode(reply)


def store_memory(
    keys: AgentKeys,
    memory_type: str,
    key: str,
    body: bytes,
    ttl: float | None,
    *,
    how: str = "",
    once: str | None = None,
) -> Call[StoredMemory | Miss | None]:
    """Stores or replaces. `how`: `blind`, as new where it is not resident, and no miss; `volatile`, never cold;
    `replace`, only where there is one (else None)."""
    member = member_of(memory_type, key)
    args = (keys.agent.bytes, member, "" if ttl is None else repr(ttl), body, how)
    at = (keys.memory(member), keys.memories, keys.log)
    stored = _or_miss(lambda head: wire.memory_of(keys.agent, member, head + body))
    return _once("store_memory", keys, at, args, lambda reply: None if reply is None else stored(reply), once)


def get_memory(keys: AgentKeys, memory_type: str, key: str) -> Call[StoredMemory | Miss | None]:
    """Reads without counting."""
    member = member_of(memory_type, key)
    return fcall_ro("get_memory", (keys.memory(member),), _memory(keys, member))


def retrieve_memory(
    keys: AgentKeys, memory_type: str, key: str, decode: Callable[[Any], Any] | None = None
) -> Call[StoredMemory | Miss | None]:
    """Reads and counts the access."""
    member = member_of(memory_type, key)
    at = (keys.memory(member), keys.memories, keys.accesses)
    return fcall("retrieve_memory", at, (keys.agent.bytes, member), decode or _memory(keys, member))


def _data(reply: Any) -> Any:
    if reply is None:
        return None
    return MISS if reply == _MISS else wire.memory_data(reply)


def retrieve_data(keys: AgentKeys, memory_type: str, key: str) -> Call[Any]:
    """`retrieve_memory`, of which only the data is read: a miss, the data, or None where there is no such memory."""
    return retrieve_memory(keys, memory_type, key, _data)


def delete_memory(keys: AgentKeys, memory_type: str, key: str) -> Call[bool | Miss]:
    """Deletes; False where there was none."""
    member = member_of(memory_type, key)
    at = (keys.memory(member), keys.memories, keys.log)
    return fcall("delete_memory", at, (keys.agent.bytes, member), _or_miss(bool))


class MemoryIndex(NamedTuple):
    """What an agent's index says: the names `<type>:<key>` of resident memories, and of which types (`""`: of all that
    begin with no `_`) it names every memory that PostgreSQL has alive."""

    members: list[str]
    whole: frozenset[str]

    def is_whole(self, memory_type: str | None) -> bool:
        """Whether all memories of a type (None: of all that begin with no `_`) are named."""
        kind = memory_type or ""
        return kind in self.whole or ("" in self.whole and not kind.startswith("_"))


def index_of(reply: Any) -> MemoryIndex:
    """What ZRANGE gave of an index."""
    names = [name.decode(errors="replace") for name in reply]
    return MemoryIndex(
        [name for name in names if name[:1] not in ("*", "?")],
        frozenset(name[1:] for name in names if name[:1] == "*"),
    )


def resident_members(keys: AgentKeys) -> Call[list[str]]:
    """The names in the agent's index."""
    return Call(("ZRANGEBYSCORE", keys.memories, 0, "+inf"), lambda reply: index_of(reply).members)


def memory_index(keys: AgentKeys) -> Call[MemoryIndex]:
    """The agent's index."""
    return Call(("ZRANGE", keys.memories, 0, -1), index_of)


def memory_bytes(keys: AgentKeys, member: str) -> Call[bytes | None]:
    """A memory's value as it stands."""
    return Call(("GET", keys.memory(member)), same)


# --- keys ---


def evict(keys: Sequence[str] | Sequence[bytes]) -> Call[tuple[int, int]]:
    """Drops what is clean of these keys; gives (dropped, kept)."""
    return fcall("evict", keys, (), lambda reply: (int(reply[0]), int(reply[1])))


def scan(cursor: bytes, pattern: str) -> Call[tuple[bytes, list[bytes]]]:
    """Some keys by that pattern, and the next cursor; `0` begins and ends."""
    return Call(("SCAN", cursor, "MATCH", pattern, "COUNT", 1_000), lambda reply: (bytes(reply[0]), list(reply[1])))


def idle_time(key: bytes) -> Call[int | None]:
    """Whole seconds since a key was last used; None: it is not there."""
    return Call(("OBJECT", "IDLETIME", key), lambda reply: None if reply is None else int(reply))


def keep_warm(key: str, ttl: float) -> Call[bool]:
    """Starts the TTL of a clean state or list again; leaves one that has none."""
    return Call(("PEXPIRE", key, int(ttl * 1000), "XX"), bool)


def sweep_idempotency(keys: ShardKeys, window: float, cursor: bytes) -> Call[tuple[bytes, int]]:
    """Forgets the idempotency keys that are older than the window, a page at a time; gives (next cursor, swept)."""
    args: list[Argument] = [repr(window), cursor, 1_000]
    return fcall("sweep_idempotency", (keys.idem,), args, lambda reply: (bytes(reply[0]), int(reply[1])))


def take_wanted(keys: ShardKeys, count: int) -> Call[list[UUID]]:
    """Agents that foreign clients asked to be rehydrated; whoever takes them does it."""
    return Call(("SPOP", keys.wanted, count), lambda reply: [UUID(bytes=agent) for agent in reply if len(agent) == 16])


# --- logs ---


def log_is_there(keys: ShardKeys) -> Call[bool]:
    """Whether the shard can be written to: its log was neither lost nor is it parked."""
    return Call(("EXISTS", keys.log), bool)


def log_length(keys: ShardKeys) -> Call[int]:
    """How many entries wait."""
    return Call(("XLEN", keys.log), int)


class LogSize(NamedTuple):
    """How full a shard's log is: entries that wait, entries it ever took, at how many it takes no more (0: never); the
    stamp and the bytes of the one that waits longest."""

    waiting: int
    added: int
    limit: int
    oldest: int = 0
    oldest_bytes: int = 0


def log_size(keys: ShardKeys) -> Call[LogSize]:
    """How full a log is, and what went through it."""
    return fcall_ro("backlog", (keys.log,), _log_size)


def _log_size(reply: Any) -> LogSize:
    waiting, added, limit, _, oldest, size, _ = reply
    return LogSize(int(waiting), int(added), int(limit), stamp_of(oldest) if oldest else 0, int(size))


def receipt(log: str) -> Call[Receipt]:
    """A receipt for all that this log took so far."""

    def decode(reply: Any) -> Receipt:
        waiting, _, _, last, *_, server = reply
        return Receipt(shard_in(log), stamp_of(last) if int(waiting) else 0, server.decode(errors="replace"))

    return fcall_ro("backlog", (log, shard_keys(shard_in(log)).stats), decode)


def receipt_beside(call: Call[Any]) -> Call[Receipt]:
    """The receipt for a call that appends to a log: to be asked for right after it, in the same round trip."""
    count = int(call.command[2])
    return receipt(next(key for key in map(str, call.command[3 : 3 + count]) if key.endswith(":log")))


def barrier() -> Call[bool]:
    """A write that does nothing else, for what waits for the writes of its own connection."""
    return fcall("barrier", (BARRIER,), (), accepted)


def type_of(key: str) -> Call[str]:
    """What is under a key: `stream`, `set`, ...; `none` where there is nothing."""
    return Call(("TYPE", key), lambda reply: str(reply, "ascii"))


def dead_letters(keys: ShardKeys) -> Call[int]:
    """How many entries of this shard could not be flushed."""
    return Call(("XLEN", keys.dead), int)
