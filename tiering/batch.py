"""What one flush transaction carries: log entries and current values of some shards, decoded, and what is wrong with
some of them. It knows how to be written (rows) and how to be forgotten (settlements)."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from typing import TypeVar
from uuid import UUID

from banshee_memory.cold.staging import AmendmentRow, Batch, EventRow, MemoryRow, MessageRow, StateRow
from banshee_memory.errors import BansheeError
from banshee_memory.hot import wire
from banshee_memory.hot.faults import ForeignKeyError
from banshee_memory.hot.flushing import Entry, Settlement
from banshee_memory.hot.keys import AgentKeys, ShardKeys, agent_keys, member_of, member_parts
from banshee_memory.records import StoredMemory
from banshee_memory.settings import Settings
from banshee_memory.stamps import to_us
from banshee_memory.validation import unstorable

T = TypeVar("T")
_LONGEST_ONCE = 257
DAY_US = 86_400_000_000
Member = tuple[UUID, str]
Row = MessageRow | EventRow | StateRow | MemoryRow | AmendmentRow


@dataclass(slots=True)
class Load:
    """One shard's part: the entries read from the head of its log, and what became of each."""

    keys: ShardKeys
    entries: list[Entry]
    accessed: list[bytes]
    settings: Settings
    most: int
    is_left_out: bool = False
    """Its dead letters' key is of another type: what could not be carried would have nowhere to go."""
    is_logged_again: bool = False
    """PostgreSQL had lost some of it, which Redis still had: that is in the log once more, at its end."""
    newest: int = 0
    """The newest stamp of a value that is carried: values are read after the entries, so it may lie after those."""
    states: set[UUID] = field(default_factory=set)
    members: set[Member] = field(default_factory=set)
    messages: set[UUID] = field(default_factory=set)
    events: set[UUID] = field(default_factory=set)
    dead: dict[bytes, str] = field(default_factory=dict)
    expired: set[bytes] = field(default_factory=set)
    erased: set[bytes] = field(default_factory=set)
    """Entries of agents that were forgotten since."""
    doomed: set[UUID] = field(default_factory=set)
    """Those agents, where something of them was met."""
    tombstones: Mapping[UUID, int] = field(default_factory=dict)
    by_stamp: dict[int, Entry] = field(default_factory=dict)
    values: dict[Member, bytes] = field(default_factory=dict)
    stamps: dict[UUID, int] = field(default_factory=dict)
    superseded: set[UUID | Member] = field(default_factory=set)
    """States (by agent) and memories that PostgreSQL has others of."""
    outdated: set[tuple[UUID, UUID, int]] = field(default_factory=set)
    """Messages (by agent, id and time) whose emotional context in PostgreSQL is newer."""

    def __post_init__(self) -> None:
        for raw in self.accessed:
            with suppress(ValueError):  # what has no agent or no name is forgotten with the settlement
                self.members.add((UUID(bytes=raw[:16]), raw[16:].decode()))

    @property
    def is_parked(self) -> bool:
        """Whether the log that this is of is parked; what comes after it, another log tells."""
        return self.keys.log == self.keys.parked

    @property
    def is_cut_short(self) -> bool:
        """Whether more memories were read by agents than one transaction carries."""
        return len(self.accessed) >= self.most

    def agents(self) -> set[UUID]:
        """Whose records these are, as far as they say."""
        agents = {agent for agent, _ in self.members}
        for entry in self.entries:
            with suppress(ValueError, IndexError):
                agents.add(entry.agent)
        return agents

    def sort_into(self, batch: Batch, now_us: int, tombstones: Mapping[UUID, int]) -> None:
        """Decodes the entries: rows into the batch, current values to be read, the rest to the dead letters.

        `tombstones` of forgotten agents: what is stamped up to there is carried nowhere.
        """
        self.tombstones = tombstones
        for entry in self.entries:
            try:
                self._sort(entry, batch, now_us)
            except (wire.Undecodable, ValueError, IndexError) as exc:
                self.dead[entry.id] = str(exc)[:500]

    def _sort(self, entry: Entry, batch: Batch, now_us: int) -> None:
        agent = entry.agent
        if self._is_forgotten(agent, entry.stamp):
            self._erase(entry)
            return
        self.by_stamp[entry.stamp] = entry
        match entry.kind:
            case "M" | "E" | "A":
                self._sort_history(entry, batch, now_us)
            case "m" | "e":
                self._sort_again(entry, batch, now_us)
            case "S":
                self.states.add(agent)
            case "V":
                self.members.add((agent, entry.payload.decode()))
            case "F":  # the moment at which somebody was forgotten: only its place in the log is of use
                pass
            case kind:
                raise wire.Undecodable(f"kind {kind!r} is unknown")

    def _is_forgotten(self, agent: UUID, stamp: int) -> bool:
        return stamp <= self.tombstones.get(agent, -1)

    def _erase(self, entry: Entry) -> None:
        """Leaves an entry out. A replica that was promoted brings the keys back, too: the settlement looks at those."""
        self.erased.add(entry.id)
        self.doomed.add(entry.agent)
        if entry.kind == "V":
            with suppress(ValueError):
                self.members.add((entry.agent, entry.payload.decode()))

    def _sort_history(self, entry: Entry, batch: Batch, now_us: int) -> None:
        agent, element = entry.agent, wire.element_of(entry.kind, entry.stamp, entry.payload)
        if entry.kind == "M":
            self.messages.add(agent)
            message = wire.message_of(agent, element)
            self._refuse(unstorable(message.record.role, message.record.content, message.record.tokens_used))
            self._doubt(entry, message.at_us, batch)
            if self._is_kept(entry, message.at_us, self.settings.message_retention_days, now_us):
                batch.messages.append(MessageRow.of(message))
        elif entry.kind == "E":
            self.events.add(agent)
            self.states.add(agent)  # before it is read: what cannot be has changed the state all the same
            event = wire.event_of(agent, element)
            self._doubt(entry, event.placed.at_us, batch)
            if self._is_kept(entry, event.placed.at_us, self.settings.event_retention_days, now_us):
                batch.events.append(EventRow.of(*event))
        else:
            self.messages.add(agent)
            amendment = wire.amendment_of(entry.payload)
            message_id = UUID(bytes=amendment.id)
            context = amendment.emotional_context
            batch.amendments.append(AmendmentRow(agent, entry.stamp, message_id, amendment.at_us, context))

    def _sort_again(self, entry: Entry, batch: Batch, now_us: int) -> None:
        """An element that PostgreSQL had once, and went back to before; it has its own stamp."""
        agent, element = entry.agent, entry.payload
        batch.is_doubtful = True
        if self._is_forgotten(agent, wire.place_of(element)[1]):
            return
        if entry.kind == "m":
            self.messages.add(agent)
            message = wire.message_of(agent, element)
            if self._is_kept(entry, message.at_us, self.settings.message_retention_days, now_us):
                batch.messages.append(MessageRow.of(message))
        else:
            self.events.add(agent)
            event = wire.event_of(agent, element)
            if self._is_kept(entry, event.placed.at_us, self.settings.event_retention_days, now_us):
                batch.events.append(EventRow.of(event.placed, event.after))

    def _doubt(self, entry: Entry, at_us: int, batch: Batch) -> None:
        """A letter that was put back has a stamp other than its record had, and a time of its own; whoever knows of it
        by the one may meet it by the other on a server that is not the one that it was put back on."""
        if self.is_parked or at_us // 1_000 != entry.stamp >> 16:
            batch.is_doubtful = True

    def _refuse(self, reason: str | None) -> None:
        if reason:
            raise wire.Undecodable(reason)

    def _is_kept(self, entry: Entry, at_us: int, days: int | None, now_us: int) -> bool:
        kept = days is None or at_us >= now_us - days * DAY_US
        if not kept:
            self.expired.add(entry.id)
        return kept

    def keyed(self) -> Iterator[tuple[Entry, bytes]]:
        """The entries of calls that brought an idempotency key, each with it."""
        for entry in self.by_stamp.values():
            once = entry.once or b""
            if once[:1].isalpha() and len(once) <= _LONGEST_ONCE:
                yield entry, once

    def add_state(self, agent: UUID, flat: list[bytes] | BansheeError, batch: Batch) -> None:
        """The state of an agent as its hash holds it now, which may be newer than the entry that named it."""
        try:
            stored = wire.state_of(_present(flat))
        except wire.Undecodable as exc:
            self._bury("S", agent, b"", str(exc))
            return
        if stored is None:
            return
        if self._is_forgotten(agent, stored.stamp):
            self.doomed.add(agent)
            return
        self.stamps[agent] = stored.stamp
        self.newest = max(self.newest, stored.stamp)
        batch.states.append(StateRow.of(agent, stored))

    def add_memory(self, member: Member, raw: bytes | BansheeError | None, batch: Batch, now_us: int) -> None:
        """A memory as its key holds it now. One that expired before it was cold goes in as a deletion."""
        agent, name = member
        try:
            raw = _present(raw)
            if raw is None or not wire.is_for_postgres(raw):
                return
            stored = wire.memory_of(agent, name, raw)
            if stored.record is not None and not 0 <= stored.record.importance <= 1:
                raise wire.Undecodable(f"memory: importance {stored.record.importance} is not in [0, 1]")
        except wire.Undecodable as exc:
            self._bury("V", agent, name.encode(), str(exc))
            return
        if self._is_forgotten(agent, stored.stamp):
            self.doomed.add(agent)
            return
        record = stored.record
        if record is not None and record.expires_at is not None and to_us(record.expires_at) <= now_us:
            stored = StoredMemory(stored.stamp, None)
        self.values[member] = raw
        self.newest = max(self.newest, stored.stamp)
        batch.memories.append(MemoryRow.of(agent, *member_parts(name), stored))

    def bury(self, row: Row, reason: str) -> None:
        """Makes a dead letter of what PostgreSQL refused."""
        if isinstance(row, MemoryRow):
            name = member_of(row.memory_type, row.key)
            self.values.pop((row.agent_id, name), None)
            self._bury("V", row.agent_id, name.encode(), reason)
        elif isinstance(row, StateRow):
            self.stamps.pop(row.agent_id, None)
            self._bury("S", row.agent_id, b"", reason)
        elif row.stamp in self.by_stamp:
            self.dead[self.by_stamp[row.stamp].id] = reason

    def supersede(self, row: StateRow | MemoryRow | AmendmentRow) -> None:
        """Notes that PostgreSQL has another: the one in Redis must not stay to be read."""
        if isinstance(row, AmendmentRow):
            self.outdated.add((row.agent_id, row.message_id, row.at_us))
        elif isinstance(row, MemoryRow):
            self.superseded.add((row.agent_id, member_of(row.memory_type, row.key)))
        else:
            self.superseded.add(row.agent_id)

    def _bury(self, kind: str, agent: UUID, payload: bytes, reason: str) -> None:
        for entry in self.by_stamp.values():
            if (entry.kind, entry.agent, entry.payload) == (kind, agent, payload):
                self.dead[entry.id] = reason

    def settlement(self) -> Settlement:
        """What mark-clean must do about the keys that were carried."""
        settlement, settings = Settlement(), self.settings
        for key, element in self._leaving():
            settlement.drop(key, element)
        for agent, message, at_us in self.outdated:
            settlement.outdated(self._keys(agent).messages, message, at_us)
        self._settle_forgotten(settlement)
        for agent in self.messages:
            settlement.history(self._keys(agent).messages, settings.message_cap)
        for agent in self.events:
            settlement.history(self._keys(agent).events, settings.event_cap)
        for agent, stamp in self.stamps.items():
            settlement.state(self._keys(agent), stamp, superseded=agent in self.superseded)
        for (agent, name), raw in self.values.items():
            settlement.memory(self._keys(agent), name, raw, superseded=(agent, name) in self.superseded)
        carried = {agent.bytes + name.encode() for agent, name in self.values}
        for raw in set(self.accessed) - carried:
            settlement.unread(raw)
        return settlement

    def _settle_forgotten(self, settlement: Settlement) -> None:
        for agent in self.doomed:
            keys, stamp = self._keys(agent), self.tombstones[agent]
            settlement.forgotten_state(keys, stamp)
            settlement.forgotten_history(keys.messages, stamp)
            settlement.forgotten_history(keys.events, stamp)
        for agent, name in self.members:
            if agent in self.doomed:
                settlement.forgotten_memory(self._keys(agent), name, self.tombstones[agent])

    def _leaving(self) -> Iterator[tuple[str, bytes]]:
        """The lists' elements that do not stay: dead letters, and what is beyond retention."""
        for entry in self.entries:
            leaves = entry.id in self.dead or entry.id in self.expired
            if leaves and entry.stamp in self.by_stamp and entry.kind in "ME":
                keys = self._keys(entry.agent)
                key = keys.messages if entry.kind == "M" else keys.events
                yield key, wire.element_of(entry.kind, entry.stamp, entry.payload)

    def _keys(self, agent: UUID) -> AgentKeys:
        return agent_keys(agent, self.settings.shards)


def _present(reply: T | BansheeError) -> T:
    """A key that somebody broke (another type) is one bad record, and stops nothing."""
    if isinstance(reply, ForeignKeyError):
        raise wire.Undecodable(str(reply))
    if isinstance(reply, BansheeError):
        raise reply
    return reply


def loads_by_shard(loads: Iterable[Load]) -> dict[int, Load]:
    """The loads under the numbers of their shards."""
    return {load.keys.shard: load for load in loads}
