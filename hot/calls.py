"""Every call to Redis as a pure plan: what to send, and what to make of the reply. Nothing here does I/O.

The functions are documented in `lua/README.md`; a plan is named like its function.
"""

from __future__ import annotations

import enum
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Generic, NamedTuple, TypeVar
from uuid import UUID

import msgspec

from banshee_memory.emotions import Emotion, EmotionalState, StoredState
from banshee_memory.hot import wire
from banshee_memory.hot.keys import (
    BARRIER,
    PREFIX,
    STORE,
    AgentKeys,
    OwnedKey,
    ShardKeys,
    member_of,
    shard_in,
    shard_keys,
)
from banshee_memory.records import Pace, StoredMemory
from banshee_memory.stamps import Receipt, entry_id_of, stamp_of, to_us, uuid_of

T = TypeVar("T")
Argument = str | bytes | int | float
QUESTIONS: tuple[tuple[Argument, ...], ...] = (("INFO", "server", "replication"), ("HGET", STORE, "server"))
"""What every new connection asks first."""


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


def _fcall(
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
        return _fcall(name, at, args, decode)
    return _fcall(name, (*at, keys.idem), (*args, once), decode)


def _read(name: str, keys: Sequence[str], decode: Callable[[Any], T]) -> Call[T]:
    return Call(("FCALL_RO", f"banshee{VERSION}_{name}", len(keys), *keys), decode)


def _or_miss(decode: Callable[[Any], T]) -> Callable[[Any], T | Miss]:
    return lambda reply: MISS if reply == _MISS else decode(reply)


def _same(reply: Any) -> Any:
    return reply


def _accepted(reply: Any) -> bool:
    return bool(reply == b"OK")


# --- the server ---


def version() -> Call[tuple[int, ...]]:
    """The version of the library that is loaded."""
    return _read("version", (), lambda reply: tuple(int(part) for part in reply))


def now() -> Call[int]:
    """The clock of the hot tier, in microseconds since 1970."""
    return _read("now", (), int)


def server_time() -> Call[int]:
    """The same without the library, which costs less; where its clock is the server's, as it is but in a test build."""
    return Call(("TIME",), lambda reply: int(reply[0]) * 1_000_000 + int(reply[1]))


def fix_shards(shards: int) -> Call[int]:
    """Records the number of shards unless that was done."""
    return Call(("HSETNX", STORE, "shards", shards), int)


def fixed_shards() -> Call[int | None]:
    """The number of shards that the store was first used with; None: it was not."""
    return Call(("HGET", STORE, "shards"), lambda reply: None if reply is None else int(reply))


class Changed(enum.Enum):
    """It is another server again, or in the way of another mark; nothing was done."""

    CHANGED = "CHANGED"


CHANGED = Changed.CHANGED


def _or_changed(decode: Callable[[Any], T]) -> Callable[[Any], T | Changed]:
    return lambda reply: CHANGED if reply == b"CHANGED" else decode(reply)


def park(keys: ShardKeys, server: str) -> Call[bool | Changed]:
    """Keeps a shard from being written to; False: nothing was done, it was recovered for this server already."""
    return _fcall("park", (keys.log, keys.parked, keys.stats), (server,), _or_changed(bool))


def mentioned(keys: ShardKeys, start: bytes, count: int) -> Call[tuple[bytes, list[tuple[bytes, bytes]]]]:
    """Of the parked log's entries: where to go on (`b""`: done), and agents with what they keep in their lists."""
    command = ("FCALL_RO", f"banshee{VERSION}_mentioned", 1, keys.parked, start, count)
    return Call(command, lambda reply: (reply[0], list(zip(reply[1::2], reply[2::2], strict=True))))


def shed(
    keys: ShardKeys, server: str, birth: bytes, items: Sequence[tuple[str, str, bytes]], start: int = 0
) -> Call[tuple[int, int] | Changed]:
    """Lets go of what may be stale: of each item (key, kind, what its list keeps), of the first from that element on.
    Gives how many items are done, and how many elements of the next one."""
    args: list[Argument] = [server, birth, start]
    for _, kind, kept in items:
        args += [kind, kept]
    return _fcall("shed", (keys.parked, keys.stats, *(key for key, _, _ in items)), args, _or_changed(_done))


def _done(reply: Any) -> tuple[int, int]:
    _, items, elements = reply
    return int(items), int(elements)


def clear(keys: ShardKeys, server: str, items: Sequence[tuple[str, str]]) -> Call[int | Changed]:
    """Lets go of the rest that may be stale once what was parked is flushed: of each item (key, kind)."""
    at = (keys.log, keys.parked, *(key for key, _ in items))
    return _fcall("clear", at, (server, *(kind for _, kind in items)), _or_changed(int))


def mark_recovered(keys: ShardKeys, server: str) -> Call[bool | Changed]:
    """Says that nothing stale is left in a shard of this server."""
    return _fcall("mark", (keys.stats,), ("server", server), _or_changed(_accepted))


def which_server() -> list[Call[Any]]:
    """What tells servers apart; read by `incarnation.incarnation_of`."""
    return [Call(question, _same) for question in QUESTIONS]


def named_server() -> Call[str]:
    """The server that is written to."""
    return Call(("HGET", STORE, "server"), lambda reply: "" if reply is None else reply.decode(errors="replace"))


def name_server(server: str) -> Call[bool | Changed]:
    """Says that this server is the one that is written to."""
    return _fcall("mark", (STORE,), ("server", server), _or_changed(_accepted))


def parked_length(keys: ShardKeys) -> Call[int]:
    """How many entries wait in a parked log."""
    return Call(("XLEN", keys.parked), int)


def reached(keys: ShardKeys) -> Call[int | None]:
    """The last stamp that a shard's log had on this server (0: none), before it is seeded; None: the log is there."""
    return _read("reached", (keys.log, keys.parked), _stamp_or_none)


def flushed_mark(keys: ShardKeys) -> Call[int]:
    """Up to which stamp a shard was flushed, as Redis knows it."""
    return Call(("HGET", keys.stats, "flushed"), lambda reply: 0 if reply is None else stamp_of(reply))


def mark_flushed(keys: ShardKeys, stamp: int, before: int) -> Call[bool | Changed]:
    """Says up to which stamp a shard was flushed: less than it said before, where PostgreSQL went back."""
    args = ("flushed", entry_id_of(stamp), entry_id_of(before))
    return _fcall("mark", (keys.stats,), args, _or_changed(_accepted))


_AGAIN = {"state": "s", "memory": "m", "memories": "i", "messages": "M", "events": "E"}


def log_again(key: OwnedKey, stamp: int, start: int = 0) -> Call[tuple[int, int | None]]:
    """Logs what of a key is stamped after that, of a list from that element on; gives how many entries that were, and
    how many elements are done (None: all)."""
    shard, tag = shard_keys(key.shard), f"{PREFIX}{{{key.shard}}}:"
    index = f"{tag}memories:{key.agent}"
    member = key.name.removeprefix(f"{tag}memory:{key.agent}:") if key.kind == "memory" else ""
    args = (key.agent.bytes, _AGAIN[key.kind], stamp.to_bytes(8, "big"), member, start)
    decode = lambda reply: (int(reply[0]), int(reply[1]) if reply[1] else None)  # noqa: E731
    return _fcall("log_again", (key.name, shard.log, shard.accesses, index), args, decode)


def kept_reply(keys: ShardKeys, field: bytes) -> Call[bytes | None]:
    """What a call with an idempotency key was answered."""
    return Call(("HGET", keys.idem, field), _same)


def keep_reply(keys: ShardKeys, field: bytes, reply: bytes) -> Call[int]:
    """Tells again what a call was answered; what is there stays."""
    return Call(("HSETNX", keys.idem, field, reply), int)


def seed(keys: ShardKeys, stamp: int, server: str) -> Call[int | Changed | None]:
    """Makes a log that is not there, or brings the parked one back, with its next stamp after this one.

    Gives the last stamp that the log had on this server (0: there was none); None: the log is there.
    """
    at = (keys.log, keys.parked, keys.stats)
    return _fcall("seed", at, (entry_id_of(stamp), server), _or_changed(_stamp_or_none))


def stamp_after(keys: ShardKeys, stamp: int) -> Call[bool]:
    """Makes the next stamps of a shard lie after one that PostgreSQL is about to have from elsewhere."""
    return _fcall("stamp_after", (keys.log,), (entry_id_of(stamp),), _accepted)


def _stamp_or_none(reply: Any) -> int | None:
    return None if reply is None else stamp_of(reply)


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
    return _read("load_state", (keys.state,), wire.state_now)


def state_hash(keys: AgentKeys) -> Call[list[bytes]]:
    """The fields and values of its hash, undecayed; see `wire.state_of`."""
    return Call(("HGETALL", keys.state), _same)


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
    return _fcall("save_state", (keys.state, keys.log), args, _or_miss(stamp_of))


def set_temperament(
    keys: AgentKeys, absence: str, rates: Mapping[Emotion, float | None]
) -> Call[EmotionalState | Miss | None]:
    """Its own rates (None: the emotion's) and what being away means (`""`: as it is); gives what it feels."""
    args: list[Argument] = [keys.agent.bytes, absence]
    for emotion, rate in rates.items():
        args += [emotion.value, "" if rate is None else repr(rate)]
    return _fcall("set_temperament", (keys.state, keys.log), args, wire.state_now)


def set_presence(keys: AgentKeys, presence: str) -> Call[bool | Miss]:
    """It goes `away` or is `here`; False where that changes nothing for it."""
    return _fcall("set_presence", (keys.state, keys.log), (keys.agent.bytes, presence), _or_miss(bool))


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
    header: Call[Any] = Call(("LINDEX", key, 0), _same)
    return [header, Call(("LRANGE", key, -limit, -1), _same), header]


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
    return _fcall("amend_message", (keys.messages, keys.log, keys.forgotten), args, _accepted)


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
    return _read("get_memory", (keys.memory(member),), _memory(keys, member))


def retrieve_memory(
    keys: AgentKeys, memory_type: str, key: str, decode: Callable[[Any], Any] | None = None
) -> Call[StoredMemory | Miss | None]:
    """Reads and counts the access."""
    member = member_of(memory_type, key)
    at = (keys.memory(member), keys.memories, keys.accesses)
    return _fcall("retrieve_memory", at, (keys.agent.bytes, member), decode or _memory(keys, member))


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
    return _fcall("delete_memory", at, (keys.agent.bytes, member), _or_miss(bool))


class MemoryIndex(NamedTuple):
    """What an agent's index says: the names `<type>:<key>` of resident memories, and of which types (`""`: of all that
    begin with no `_`) it names every memory that PostgreSQL has alive."""

    members: list[str]
    whole: frozenset[str]

    def is_whole(self, memory_type: str | None) -> bool:
        """Whether all memories of a type (None: of all that begin with no `_`) are named."""
        kind = memory_type or ""
        return kind in self.whole or ("" in self.whole and not kind.startswith("_"))


def _memory_index(reply: Any) -> MemoryIndex:
    names = [name.decode(errors="replace") for name in reply]
    return MemoryIndex(
        [name for name in names if name[:1] not in ("*", "?")],
        frozenset(name[1:] for name in names if name[:1] == "*"),
    )


def resident_members(keys: AgentKeys) -> Call[list[str]]:
    """The names in the agent's index."""
    return Call(("ZRANGEBYSCORE", keys.memories, 0, "+inf"), lambda reply: _memory_index(reply).members)


def memory_index(keys: AgentKeys) -> Call[MemoryIndex]:
    """The agent's index."""
    return Call(("ZRANGE", keys.memories, 0, -1), _memory_index)


def memory_bytes(keys: AgentKeys, member: str) -> Call[bytes | None]:
    """A memory's value as it stands."""
    return Call(("GET", keys.memory(member)), _same)


# --- between the tiers ---


class Resident(enum.Enum):
    """Somebody brought the key in meanwhile: read again."""

    RESIDENT = "RESIDENT"


RESIDENT = Resident.RESIDENT


def lease(key: str, kind: str, token: bytes, ttl: float) -> Call[bytes | Resident]:
    """The right to offer a state ('s'), a memory ('m') or, as long as nothing leaves it, a history ('h')."""
    decode = lambda reply: RESIDENT if reply == b"RESIDENT" else bytes(reply)  # noqa: E731
    return _fcall("lease", (key,), (kind, token, int(ttl * 1000)), decode)


def offer_state(keys: AgentKeys, token: bytes, ttl: float, state: StoredState | None) -> Call[bool]:
    """What PostgreSQL said of a state; False: refused."""
    args: list[Argument] = [token, int(ttl * 1000), *wire.state_fields(state)]
    return _fcall("offer_state", (keys.state,), args, _accepted)


def offer_history(
    key: str, header: wire.Header, ttl: float, complete_from: tuple[float, int], elements: Sequence[bytes]
) -> Call[bool]:
    """What PostgreSQL said of a history, complete from that place on; False: refused."""
    from_us, from_stamp = complete_from
    place: list[Argument] = [f"{from_us:.0f}", from_stamp.to_bytes(8, "big")]
    args = [header.generation, int(ttl * 1000), *place, *elements]
    return _fcall("offer_history", (key,), args, _accepted)


def offer_memory(keys: AgentKeys, member: str, token: bytes, ttl: float, stored: StoredMemory | None) -> Call[bool]:
    """What PostgreSQL said of a memory; False: refused."""
    args = (token, int(ttl * 1000), member, wire.memory_bytes(stored), keys.agent.bytes)
    return _fcall("offer_memory", (keys.memory(member), keys.memories, keys.forgotten), args, _accepted)


def lease_memories(
    keys: AgentKeys, memory_type: str | None, token: bytes, ttl: float, empty: Sequence[str]
) -> Call[bytes]:
    """The right to offer a whole type (None: all that begin with no `_`). `empty`: members of the index that were found
    to have no value; those that have none now leave it."""
    at = (keys.memories, *map(keys.memory, empty))
    args: list[Argument] = [memory_type or "", token, int(ttl * 1000), *empty]
    return _fcall("lease_memories", at, args, bytes)


def offer_memories(
    keys: AgentKeys,
    memory_type: str | None,
    token: bytes,
    ttl: float,
    values: Mapping[str, bytes],
    *,
    whole: bool,
) -> Call[int]:
    """What PostgreSQL said of a type, by member (`b""`: it was resident); `whole`: with those offered before, these are
    all that it has. Gives how many were not there; none, where the lease is over."""
    at = (keys.memories, *map(keys.memory, values))
    args: list[Argument] = [memory_type or "", token, int(ttl * 1000), "1" if whole else ""]
    args += [word for item in values.items() for word in item]
    return _fcall("offer_memories", at, args, lambda reply: 0 if reply == b"REFUSED" else int(reply))


def evict(keys: Sequence[str] | Sequence[bytes]) -> Call[tuple[int, int]]:
    """Drops what is clean of these keys; gives (dropped, kept)."""
    return _fcall("evict", keys, (), lambda reply: (int(reply[0]), int(reply[1])))


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
    return _fcall("sweep_idempotency", (keys.idem,), args, lambda reply: (bytes(reply[0]), int(reply[1])))


def take_wanted(keys: ShardKeys, count: int) -> Call[list[UUID]]:
    """Agents that foreign clients asked to be rehydrated; whoever takes them does it."""
    return Call(("SPOP", keys.wanted, count), lambda reply: [UUID(bytes=agent) for agent in reply if len(agent) == 16])


# --- flush ---


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
    return _read("backlog", (keys.log,), _log_size)


def _log_size(reply: Any) -> LogSize:
    waiting, added, limit, _, oldest, size, _ = reply
    return LogSize(int(waiting), int(added), int(limit), stamp_of(oldest) if oldest else 0, int(size))


def receipt(log: str) -> Call[Receipt]:
    """A receipt for all that this log took so far."""

    def decode(reply: Any) -> Receipt:
        waiting, _, _, last, *_, server = reply
        return Receipt(shard_in(log), stamp_of(last) if int(waiting) else 0, server.decode(errors="replace"))

    return _read("backlog", (log, shard_keys(shard_in(log)).stats), decode)


def receipt_beside(call: Call[Any]) -> Call[Receipt]:
    """The receipt for a call that appends to a log: to be asked for right after it, in the same round trip."""
    count = int(call.command[2])
    return receipt(next(key for key in map(str, call.command[3 : 3 + count]) if key.endswith(":log")))


def barrier() -> Call[bool]:
    """A write that does nothing else, for what waits for the writes of its own connection."""
    return _fcall("barrier", (BARRIER,), (), _accepted)


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
    return _fcall("mark_clean", at, args, lambda reply: reply != b"CHANGED")


def type_of(key: str) -> Call[str]:
    """What is under a key: `stream`, `set`, ...; `none` where there is nothing."""
    return Call(("TYPE", key), lambda reply: str(reply, "ascii"))


def dead_letters(keys: ShardKeys) -> Call[int]:
    """How many entries of this shard could not be flushed."""
    return Call(("XLEN", keys.dead), int)
