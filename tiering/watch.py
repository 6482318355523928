"""What the daemon's jobs did and saw last, for whoever asks over HTTP.

An answer never waits for a store: it is what was seen last, and how long ago that was. So a server that hangs hangs the
job that asks it, and is told of by all the others.
"""

from __future__ import annotations

import math
import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Literal

import msgspec

from banshee_memory.errors import BansheeError, ColdStoreUnavailable, HotStoreUnavailable
from banshee_memory.records import Backlog, FlushReport
from banshee_memory.settings import Settings

OBSERVE_EVERY = 2.0
"""Seconds between two looks at each store."""
_LONGEST_WAIT = 30.0
_SHARE = 0.05
_LONGEST_BLINK = 10.0
_SLACK = 30.0
_KINDS = ("messages", "events", "states", "memories")
Clock = Callable[[], float]
Store = Literal["redis", "postgres"]


class Verdict(msgspec.Struct, frozen=True, kw_only=True):
    """Whether all is well, what is not, and the particulars."""

    ok: bool
    reasons: tuple[str, ...]
    body: Mapping[str, Any]


class HotSight(msgspec.Struct, frozen=True, kw_only=True):
    """What Redis looked like."""

    latency: float
    backlog: Backlog
    dead_letters: int
    used_memory: int
    max_memory: int
    evicted_keys: int


class JobWatch:
    """How one job goes. It may be silent, overdue or failing for `patience` seconds before it counts as broken."""

    def __init__(self, name: str, every: float, patience: float, clock: Clock) -> None:
        self.name = name
        self.runs = 0
        self.failures: Counter[str] = Counter()
        self.in_a_row = 0
        self.ended_well_at: float | None = None
        self._every = every
        self._patience = patience
        self._clock = clock
        self._moved_at = clock()
        self._at_work = False
        self._failing_since: float | None = None
        self._why = ""

    def begun(self) -> None:
        """It is at work."""
        self._moved_at, self._at_work = self._clock(), True

    def moved(self) -> None:
        """It is at work and gets on: one that has much to do may take its time."""
        self._moved_at = self._clock()

    def ended(self) -> None:
        """It did its work."""
        self.runs += 1
        self.in_a_row, self._failing_since, self._why = 0, None, ""
        self._moved_at = self.ended_well_at = self._clock()
        self._at_work = False

    def failed(self, exc: Exception) -> None:
        """It could not do its work, and tries again. A store that is away is no failing of the job: nothing here could
        mend that, least of all another process in the place of this one."""
        self.runs += 1
        self.failures[type(exc).__name__] += 1
        self.in_a_row += 1
        self._moved_at, self._at_work = self._clock(), False
        self._why = " ".join(str(exc).split()) if isinstance(exc, BansheeError) else type(exc).__name__
        if isinstance(exc, HotStoreUnavailable | ColdStoreUnavailable):
            self._failing_since = None
        elif self._failing_since is None:
            self._failing_since = self._clock()

    def broken(self) -> str | None:
        """What is wrong with it, if anything has been for too long."""
        now = self._clock()
        silent = now - self._moved_at
        if self._at_work and silent > self._patience:
            return f"{self.name} has been at work for {silent:.0f} s without getting on"
        if not self._at_work and silent > max(self._every, _LONGEST_WAIT) * 1.1 + self._patience:
            return f"{self.name} has not been begun for {silent:.0f} s"
        if self._failing_since is not None and now - self._failing_since > self._patience:
            return f"{self.name} has failed for {now - self._failing_since:.0f} s: {self._why}"
        return None

    def told(self) -> dict[str, Any]:
        """The particulars."""
        ended = self.ended_well_at
        return {
            "at_work": self._at_work,
            "last_success_age": None if ended is None else round(self._clock() - ended, 3),
            "failures_in_a_row": self.in_a_row,
            "why": self._why or None,
        }


class StoreWatch:
    """When a store was asked last, and what it said."""

    def __init__(self, clock: Clock) -> None:
        self.answered_at: float | None = None
        self.latency = 0.0
        self.problem: str | None = None
        self._asked_at: float | None = None
        self._clock = clock

    def answered(self, latency: float) -> None:
        """It is there, and is as it must be."""
        self._asked_at = self.answered_at = self._clock()
        self.latency, self.problem = latency, None

    def failed(self, exc: BansheeError) -> None:
        """It is away, or not as it must be."""
        self._asked_at = self._clock()
        self.problem = " ".join(str(exc).split())

    def is_up(self, patience: float) -> bool:
        """Whether it answered when it was asked last, which was lately."""
        return self.wrong(patience) is None

    def wrong(self, patience: float) -> str | None:
        """What is wrong with it."""
        if self._asked_at is None:
            return "has not answered yet"
        if self.problem is not None:
            return self.problem
        age = self._clock() - self._asked_at
        return f"was last heard of {age:.0f} s ago" if age > patience else None

    def told(self) -> dict[str, Any]:
        """The particulars."""
        ago = None if self.answered_at is None else round(self._clock() - self.answered_at, 3)
        return {"last_answer_age": ago, "latency": self.latency, "problem": self.problem}


class Watch:
    """All of it. Each part is written by one job and read by anyone; what a part says is never half of something."""

    def __init__(self, settings: Settings, clock: Clock = time.monotonic) -> None:
        self.jobs: dict[str, JobWatch] = {}
        self.stores: dict[Store, StoreWatch] = {"redis": StoreWatch(clock), "postgres": StoreWatch(clock)}
        self.hot: HotSight | None = None
        self.flushes = 0
        self.flushed = FlushReport()
        self.shards_held = 0
        self.shards_waiting = 0
        self.rehydrated = 0
        self.stopping = False
        self.store_patience = 3 * OBSERVE_EVERY + settings.connect_timeout + settings.call_timeout
        self._job_patience = 2 * settings.flush_timeout + _SLACK
        self._clock = clock
        self._look_again_at = -math.inf

    def job(self, name: str, every: float) -> JobWatch:
        """Watches over another job."""
        patience = max(self._job_patience, every / 4)  # what is done once an hour may take its time
        return self.jobs.setdefault(name, JobWatch(name, every, patience, self._clock))

    def saw(self, sight: HotSight, seconds: float) -> None:
        """What Redis looked like, and how long the look took. One at many large records takes long, and Redis does
        little else meanwhile: the next waits until it takes a twentieth of the time, though ten seconds at most."""
        self.hot = sight
        self.stores["redis"].answered(sight.latency)
        self._look_again_at = self._clock() + min(seconds / _SHARE, _LONGEST_BLINK)

    def is_dear(self) -> bool:
        """Whether it is too soon for another look at Redis."""
        return self._clock() < self._look_again_at

    def carried(self, report: FlushReport, held: int, waiting: int) -> None:
        """A flush ended that held so many of the shards that waited."""
        self.flushes += 1
        self.flushed += report
        self.shards_held, self.shards_waiting = held, waiting
        if job := self.jobs.get("flush"):
            job.moved()

    def age(self, at: float) -> float:
        """Seconds since."""
        return self._clock() - at

    def kinds(self) -> Iterable[tuple[str, int]]:
        """The records that this daemon carried, by kind."""
        return [(kind, getattr(self.flushed, kind)) for kind in _KINDS]

    def health(self) -> Verdict:
        """Whether this process does its work. It is no less healthy for a store that is away."""
        jobs = list(self.jobs.values())
        reasons = tuple(why for job in jobs if (why := job.broken()))
        return _verdict(reasons, jobs={job.name: job.told() for job in jobs})

    def readiness(self) -> Verdict:
        """Whether both stores answered lately, with the schema and the library of this version."""
        wrong = {name: store.wrong(self.store_patience) for name, store in self.stores.items()}
        reasons = tuple(f"{name}: {why}" for name, why in wrong.items() if why)
        if self.stopping:
            reasons = ("the daemon is stopping", *reasons)
        return _verdict(reasons, stores={name: store.told() for name, store in self.stores.items()})


def _verdict(reasons: tuple[str, ...], **particulars: Any) -> Verdict:
    body = {"status": "failing" if reasons else "ok", "reasons": reasons, **particulars}
    return Verdict(ok=not reasons, reasons=reasons, body=body)
