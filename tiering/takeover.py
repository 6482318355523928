"""Takes over a database of the original plugin's: straight into PostgreSQL, past the log, which is for the present.

1. Every row is judged before the first is written: what cannot be said here and what is beyond retention stop it,
   unless the caller says otherwise.
2. A chunk at a time goes in like a flush does, under the rows of its shards, each record under a key that makes a
   second time nothing; then Redis lets go of what it held of these agents, which knows nothing of the new past.
3. The chunk is read back and compared with what the original has.
Killed anywhere, it is simply started again: what is there already is found there, and checked again.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from datetime import UTC, datetime, timedelta
from itertools import islice

import msgspec

from banshee_memory.cold import reads, stored
from banshee_memory.cold.client import ColdStore
from banshee_memory.cold.original import KINDS, Original
from banshee_memory.cold.staging import AnyRow, Batch, EventRow, MemoryRow, MessageRow, StateRow
from banshee_memory.errors import HotStoreUnavailable, InvalidInput
from banshee_memory.failpoints import failpoint
from banshee_memory.hot import calls, failover
from banshee_memory.hot.client import HotStore
from banshee_memory.hot.keys import AgentKeys, agent_keys, member_of, shard_keys, shard_of
from banshee_memory.records import TakenOver, TakeOverReport
from banshee_memory.settings import Settings
from banshee_memory.stamps import to_us
from banshee_memory.tiering.drain import Drain
from banshee_memory.tiering.original import MAPPED, name_of

Advance = Callable[[str, int], None]
_CHUNK = 2_000
_ONE = {"sessions": "session", "states": "state", "memories": "memory", "events": "event", "messages": "message"}
_ATTEMPTS = 5
_NAMED = 20
_MOST_NAMED = 1_000


class TakeOver:
    """One import of one original. `advance` is told how far it is: what it does, and of how many rows more."""

    def __init__(
        self, settings: Settings, hot: HotStore, cold: ColdStore, original: Original, advance: Advance
    ) -> None:
        self._settings = settings
        self._hot = hot
        self._cold = cold
        self._original = original
        self._advance = advance
        self._now = datetime.now(UTC)
        self._tallies = {kind: _Tally(original.count(kind)) for kind in KINDS}

    def run(self, *, skip_expired: bool, skip_unmappable: bool) -> TakeOverReport:
        """Judges, writes, compares. InvalidInput: nothing was written. Any other error: start it again."""
        self._judge(skip_expired, skip_unmappable)
        for kind in KINDS:
            for rows in _chunks(self._kept(kind), _CHUNK):
                self._carry(rows)
                self._compare(kind, rows)
        return TakeOverReport(
            tables={kind: tally.report() for kind, tally in self._tallies.items()},
            superseded_states=self._original.superseded_states(),
        )

    # --- before anything is written ---

    def _judge(self, skip_expired: bool, skip_unmappable: bool) -> None:
        for kind, tally in self._tallies.items():
            for raw in self._original.rows(kind):
                self._advance("Checking", 1)
                try:
                    row = MAPPED[kind](raw, self._settings)
                except InvalidInput as exc:
                    tally.refuse(f"{_ONE[kind]} {name_of(raw)}: {exc}")
                    continue
                tally.expired += self._is_expired(row)
                tally.ended += self._has_ended(row)
        refused = [line for tally in self._tallies.values() for line in tally.refused]
        if refused and not skip_unmappable:
            lines = "\n  ".join(refused[:_NAMED])
            more = sum(tally.skipped for tally in self._tallies.values()) - len(refused[:_NAMED])
            rest = f"\n  and {more:,} more" if more else ""
            raise InvalidInput("the original", f"these rows cannot be taken over; nothing was:\n  {lines}{rest}")
        expired = {kind: tally.expired for kind, tally in self._tallies.items() if tally.expired}
        if expired and not skip_expired:
            what = " and ".join(f"{count:,} {kind}" for kind, count in expired.items())
            raise InvalidInput(
                "the original",
                f"{what} are beyond retention; nothing was imported (skip what has expired, or switch retention off)",
            )

    def _is_expired(self, row: AnyRow) -> bool:
        days = {
            MessageRow: self._settings.message_retention_days,
            EventRow: self._settings.event_retention_days,
        }.get(type(row))
        if days is None or not isinstance(row, MessageRow | EventRow):
            return False
        return row.placed.at_us < to_us(self._now - timedelta(days=days))

    def _has_ended(self, row: AnyRow) -> bool:
        record = row.memory.record if isinstance(row, MemoryRow) else None
        return record is not None and record.expires_at is not None and record.expires_at <= self._now

    # --- writing ---

    def _kept(self, kind: str) -> Iterator[AnyRow]:
        for raw in self._original.rows(kind):
            self._advance("Importing", 1)
            try:
                row = MAPPED[kind](raw, self._settings)
            except InvalidInput:
                continue
            if not self._is_expired(row) and not self._has_ended(row):
                yield row

    def _carry(self, rows: Sequence[AnyRow]) -> None:
        self._hot.recovering(lambda: self._store(rows))
        failpoint("takeover.committed")
        self._let_go(rows)
        failpoint("takeover.let_go")

    def _store(self, rows: Sequence[AnyRow]) -> None:
        newest = self._newest(rows)
        with self._cold.drain(sorted(newest), self._settings.flush_timeout) as drain:
            buried = drain.tombstones({row.agent_id for row in rows})
            written = drain.write(_batch(row for row in rows if row.stamp > buried.get(row.agent_id, -1)))
            if written.poison:
                row, reason = written.poison[0]
                raise InvalidInput("the original", f"PostgreSQL refuses a row of agent {row.agent_id}: {reason}")
            # The clock of the original may be ahead of that of Redis: what is written here from now on is newer all the
            # same, on this server and, as PostgreSQL knows it, on any other.
            self._hot.run_all([failover.stamp_after(shard_keys(shard), stamp) for shard, stamp in newest.items()])
            failpoint("takeover.stamps_moved")
            drain.advance({}, newest)

    def _newest(self, rows: Sequence[AnyRow]) -> dict[int, int]:
        """The newest stamp of these in each of their shards."""
        newest: dict[int, int] = {}
        for row in rows:
            shard = shard_of(row.agent_id, self._settings.shards)
            newest[shard] = max(row.stamp, newest.get(shard, 0))
        return newest

    def _let_go(self, rows: Sequence[AnyRow]) -> None:
        """Redis drops what it has of these agents: it says that nothing is missing in it, which is no longer so."""
        waiting = self._held(rows)
        for _ in range(_ATTEMPTS):
            replies = self._hot.run_all([calls.evict(held) for held in waiting.values()])
            waiting = {keys: held for (keys, held), (_, kept) in zip(waiting.items(), replies, strict=True) if kept}
            if not waiting:
                return
            for keys in waiting:
                Drain(self._settings, self._hot, self._cold).flush(keys.agent)
        busy = next(iter(waiting)).agent
        raise HotStoreUnavailable(f"Agent {busy} is written to as fast as it is flushed. Start the import again.")

    def _held(self, rows: Sequence[AnyRow]) -> dict[AgentKeys, list[str]]:
        held: dict[AgentKeys, list[str]] = {}
        for row in rows:
            keys = agent_keys(row.agent_id, self._settings.shards)
            own = held.setdefault(keys, [keys.state, keys.messages, keys.events, keys.memories])
            if isinstance(row, MemoryRow):
                own.append(keys.memory(member_of(row.memory_type, row.key)))
        return held

    # --- comparing ---

    def _compare(self, kind: str, rows: Sequence[AnyRow]) -> None:
        found = self._cold.fetch(stored.like(kind, rows))
        buried = self._cold.fetch(reads.tombstones({row.agent_id for row in rows}))
        tally = self._tallies[kind]
        for row in rows:
            there = found.get(stored.key_of(row))
            if row.stamp <= buried.get(row.agent_id, -1):
                tally.forgotten += 1
            elif there is not None and there.stamp > row.stamp:
                tally.newer += 1  # was changed here since
            elif there is None or stored.content_of(there) != stored.content_of(row):
                tally.different.append(" ".join(map(str, stored.key_of(row))))
            else:
                tally.add(row)


class _Tally:
    """What became of the rows of a kind."""

    def __init__(self, rows: int) -> None:
        self.rows = rows
        self.taken = self.newer = self.forgotten = self.expired = self.ended = self.skipped = 0
        self.refused: list[str] = []
        self.different: list[str] = []
        self._digest = hashlib.sha256()

    def refuse(self, line: str) -> None:
        """Counts a row that cannot be taken over, and says which."""
        self.skipped += 1
        if len(self.refused) < _MOST_NAMED:
            self.refused.append(line)

    def add(self, row: AnyRow) -> None:
        """Counts a row that was found stored as it is."""
        self.taken += 1
        self._digest.update(msgspec.json.encode(stored.content_of(row), order="sorted"))

    def report(self) -> TakenOver:
        """All of it."""
        return TakenOver(
            rows=self.rows,
            taken=self.taken,
            newer=self.newer,
            forgotten=self.forgotten,
            expired=self.expired + self.ended,
            skipped=self.skipped,
            refused=tuple(self.refused),
            different=tuple(self.different),
            checksum=self._digest.hexdigest(),
        )


def _batch(rows: Iterable[AnyRow]) -> Batch:
    batch = Batch()
    for row in rows:
        match row:
            case MessageRow():
                batch.messages.append(row)
            case EventRow():
                batch.events.append(row)
            case StateRow():
                batch.states.append(row)
            case MemoryRow():
                batch.memories.append(row)
    return batch


def _chunks(rows: Iterable[AnyRow], size: int) -> Iterator[list[AnyRow]]:
    walk = iter(rows)
    while chunk := list(islice(walk, size)):
        yield chunk
