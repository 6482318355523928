"""The flush: carries what is only in Redis to PostgreSQL, exactly once, whoever dies whenever.

1. Lock the rows of the shards in PostgreSQL (one transaction, in order; a daemon skips what another holds).
2. Only then read each shard's log from its head, and the current values that it names.
3. Write all of it, each record under a key that makes a second time nothing; commit.
4. Tell Redis to forget just that part of the log, compared by content, and to let clean keys go.
Dying before 3 ends leaves everything as it was; dying before 4 makes the next flush find what is there already.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from uuid import UUID

from banshee_memory.cold import reads
from banshee_memory.cold.client import ColdStore
from banshee_memory.cold.drain import Batch, Written
from banshee_memory.cold.drain import Drain as Transaction
from banshee_memory.cold.staging import ReplyRow
from banshee_memory.errors import ColdStoreUnavailable, ConfigurationError, HotStoreFull
from banshee_memory.failpoints import failpoint
from banshee_memory.hot import calls, failover, flushing
from banshee_memory.hot.client import HotStore
from banshee_memory.hot.keys import agent_keys, shard_keys, shard_of
from banshee_memory.records import FlushReport
from banshee_memory.settings import Settings
from banshee_memory.tiering.batch import Load, loads_by_shard
from banshee_memory.tiering.restoration import bring_back, gone_back, lower_marks
from banshee_memory.tiering.shards import ask, with_logs

_SHARD_ENTRIES = 1_000
_SHARD_BYTES = 1_000_000
"""The largest part of one log that mark-clean compares at once: Redis does nothing else meanwhile."""


class Drain:
    """Flushes shards. One for a thread; any number of them, in any number of processes, beside each other."""

    def __init__(self, settings: Settings, hot: HotStore, cold: ColdStore) -> None:
        self._settings = settings
        self._hot = hot
        self._cold = cold
        self.waited = 0
        """How many shards had something to carry when `sweep` looked last."""
        self.held = 0
        """How many of them it held: others hold the rest."""

    def flush(self, agent_id: UUID | None = None) -> FlushReport:
        """Carries everything that was acknowledged before this call; waits for others that flush the same shards.

        ColdStoreUnavailable if that takes longer than `Settings.flush_timeout`; what was carried until then is safe.
        ConfigurationError if nothing of some shard can be carried; all of the others is.
        """
        if agent_id is None:
            self._bring_back_logs(range(self._settings.shards))
        shards = self.waiting() if agent_id is None else [shard_of(agent_id, self._settings.shards)]
        report, left_out = self.flush_shards(shards)
        if left_out:
            numbers = ", ".join(map(str, sorted(left_out)))
            raise ConfigurationError(f"Nothing of shard {numbers} can be carried: `banshee doctor` says why.")
        return report

    def flush_shards(self, shards: Sequence[int]) -> tuple[FlushReport, set[int]]:
        """The same of these shards; gives also those of which nothing can be carried."""
        self._bring_back_logs(shards)
        return self._hot.recovering(lambda: self._flush_shards(shards))

    def _flush_shards(self, shards: Sequence[int]) -> tuple[FlushReport, set[int]]:
        left_out: set[int] = set()
        targets = self._newest(shards)
        deadline = time.monotonic() + self._settings.flush_timeout
        report, started = FlushReport(), time.monotonic()
        while shards:
            left = deadline - time.monotonic()
            if left <= 0:
                raise ColdStoreUnavailable(
                    f"The flush did not end within {self._settings.flush_timeout:g} s (Settings.flush_timeout): "
                    f"{report.records} records are carried, {len(shards)} shards are left. Call it again."
                )
            part, loads = self.carry(shards, wait=left)
            report += part
            left_out |= {shard for shard, load in loads.items() if load.is_left_out}
            # What PostgreSQL lost and Redis logged again was acknowledged before this call, too.
            targets |= self._newest([shard for shard, load in loads.items() if load.is_logged_again])
            shards = [s for s in shards if self._is_behind(loads.get(s), targets[s])]
        return report + FlushReport(seconds=time.monotonic() - started), left_out

    def sweep(self) -> FlushReport:
        """One pass over all that waits, leaving out the shards that somebody else is flushing."""
        self._bring_back_logs(range(self._settings.shards))
        return self._hot.recovering(self._sweep)

    def _sweep(self) -> FlushReport:
        started = time.monotonic()
        shards = self.waiting()
        self.waited, self.held = len(shards), 0
        if not shards:
            return FlushReport()
        report, loads = self.carry(shards, wait=None)
        self.held = len(loads)
        return report + FlushReport(seconds=time.monotonic() - started)

    def _bring_back_logs(self, shards: Sequence[int]) -> None:
        """Ends a recovery that could not be ended when the server was met, for want of PostgreSQL: until then what is
        resident may be older than what is cold, and carrying it would make it clean all the same."""
        if self._hot.recovery is None:  # it is a recovery that flushes
            return
        if not all(self._hot.run_all([calls.log_is_there(shard_keys(shard)) for shard in shards])):
            with suppress(HotStoreFull):  # it ends when something has been carried
                self._hot.recovery.admit()

    def gone_back(self) -> list[int]:
        """The shards of which PostgreSQL has less than it had: it was restored to an earlier time."""
        stamps = self._cold.fetch(reads.flushed_stamps())
        return list(gone_back(self._hot, dict(stamps)))

    def waiting(self) -> list[int]:
        """The shards that have something to carry."""
        numbers = range(self._settings.shards)
        every = with_logs(self._hot, numbers)
        lengths = ask(self._hot, [calls.log_length(keys) for keys in every])
        counts = ask(self._hot, [flushing.accesses_waiting(keys) for keys in every])
        return [n for n, *waits in zip(numbers, lengths, counts, strict=True) if any(waits)]

    def carry(self, shards: Sequence[int], wait: float | None) -> tuple[FlushReport, Mapping[int, Load]]:
        """One transaction over these shards, and the marking clean after it."""
        batch = Batch()
        with self._cold.drain(shards, wait) as transaction:
            failpoint("flush.locked")
            logged_again = bring_back(self._hot, transaction)
            loads = self._read(transaction, batch)
            for shard in logged_again.keys() & loads.keys():
                loads[shard].is_logged_again = True
            failpoint("flush.read")
            written = transaction.write(batch)
            failpoint("flush.written")
            for row, reason in written.poison:
                loads[shard_of(row.agent_id, self._settings.shards)].bury(row, reason)
            for row in written.superseded:
                loads[shard_of(row.agent_id, self._settings.shards)].supersede(row)
            transaction.keep_replies(self._replies(loads.values()))
            transaction.advance(
                {shard: load.entries[-1].stamp for shard, load in loads.items() if load.entries},
                {shard: load.newest for shard, load in loads.items() if load.newest},
            )
            failpoint("flush.advanced")
        failpoint("flush.committed")
        self._mark_clean(loads)
        failpoint("flush.marked_clean")
        lower_marks(self._hot, transaction.held, logged_again)
        return _report(written, loads), loads

    def _read(self, transaction: Transaction, batch: Batch) -> Mapping[int, Load]:
        """What these shards have, from the heads of their logs: never from a watermark, below which a promoted replica
        can hold entries that nobody flushed."""
        keys = with_logs(self._hot, transaction.held)
        count = self._entries_a_shard(len(keys))
        heads = ask(self._hot, [flushing.log_head(k, count, _SHARD_BYTES) for k in keys])
        accessed = ask(self._hot, [flushing.accessed(k, count) for k in keys])
        letters = ask(self._hot, [calls.dead_letters(k) for k in keys])
        loads = [
            Load(k, [], [], self._settings, count, is_left_out=True)
            if buried is None
            else Load(k, head or [], read or [], self._settings, count)
            for k, head, read, buried in zip(keys, heads, accessed, letters, strict=True)
        ]
        now_us = self._hot.run(calls.now())
        tombstones = transaction.tombstones({agent for load in loads for agent in load.agents()})
        for load in loads:
            load.sort_into(batch, now_us, tombstones)
        self._read_values(loads, batch, now_us)
        return loads_by_shard(loads)

    def _read_values(self, loads: Sequence[Load], batch: Batch, now_us: int) -> None:
        states = [(load, agent) for load in loads for agent in load.states]
        members = [(load, member) for load in loads for member in load.members]
        shards = self._settings.shards
        hashes = self._hot.try_all([calls.state_hash(agent_keys(agent, shards)) for _, agent in states])
        values = self._hot.try_all([calls.memory_bytes(agent_keys(a, shards), name) for _, (a, name) in members])
        for (load, agent), flat in zip(states, hashes, strict=True):
            load.add_state(agent, flat, batch)
        for (load, member), raw in zip(members, values, strict=True):
            load.add_memory(member, raw, batch, now_us)

    def _replies(self, loads: Iterable[Load]) -> list[ReplyRow]:
        """What the calls were answered that brought an idempotency key; not those whose window is over."""
        keyed = [(load, entry, once) for load in loads for entry, once in load.keyed()]
        plans = [failover.kept_reply(load.keys, entry.agent.bytes + once) for load, entry, once in keyed]
        return [
            ReplyRow(entry.agent, chr(once[0]), once[1:], load.keys.shard, entry.stamp, reply)
            for (load, entry, once), reply in zip(keyed, ask(self._hot, plans), strict=True)
            if reply is not None
        ]

    def _entries_a_shard(self, shards: int) -> int:
        return min(max(self._settings.flush_batch // max(shards, 1), 1), _SHARD_ENTRIES)

    def _mark_clean(self, loads: Mapping[int, Load]) -> None:
        # A log that is not what was read (CHANGED) was trimmed by another flush, or is another server's after a
        # failover: nothing is done to it, and the next pass reads it again.
        ask(
            self._hot,
            [
                flushing.mark_clean(load.keys, load.entries, load.settlement(), self._settings.hot_ttl, load.dead)
                for load in loads.values()
                if load.entries or load.accessed
            ],
        )

    def _newest(self, shards: Sequence[int]) -> dict[int, int]:
        tails = ask(self._hot, [flushing.log_tail(keys) for keys in with_logs(self._hot, shards)])
        return {shard: tail[0].stamp if tail else 0 for shard, tail in zip(shards, tails, strict=True)}

    def _is_behind(self, load: Load | None, target: int) -> bool:
        if load is not None and load.is_left_out:
            return False
        if load is None or load.is_parked:
            return True
        return (bool(load.entries) and load.entries[-1].stamp < target) or load.is_cut_short


def _report(written: Written, loads: Mapping[int, Load]) -> FlushReport:
    return FlushReport(
        messages=written.messages,
        events=written.events,
        states=written.states,
        memories=written.memories,
        duplicates=written.duplicates,
        conflicts=len(written.superseded),
        expired=sum(len(load.expired) for load in loads.values()),
        forgotten=sum(len(load.erased) for load in loads.values()),
        poisoned=sum(len(load.dead) for load in loads.values()),
    )
