"""How fast records come to Redis and go on to PostgreSQL, and when a shard will be at its limit if it goes on so.

Each log counts what it ever took. The daemon looks twice and leaves what it found in Redis, so that a look at the
statistics, which is over in a moment, can tell a rate too.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import suppress
from datetime import timedelta

from banshee_memory.errors import HotStoreFull
from banshee_memory.hot import calls, library
from banshee_memory.hot.calls import LogSize
from banshee_memory.hot.client import HotStore
from banshee_memory.hot.keys import shard_keys
from banshee_memory.records import Pace
from banshee_memory.settings import Settings
from banshee_memory.stamps import from_us
from banshee_memory.tiering.shards import ask, with_logs

_FRESH = timedelta(minutes=3)
Sizes = Sequence[LogSize | None]


def sizes(settings: Settings, hot: HotStore) -> Sizes:
    """How full each shard's log is; None where another type is under its name."""
    return ask(hot, [calls.log_size(keys) for keys in with_logs(hot, range(settings.shards))])


def pace_between(before: Sizes, after: Sizes, seconds: float, now_us: int) -> Pace:
    """What happened between two looks. A log that was lost in between counts as one where nothing did."""
    pairs = [(old, new) for old, new in zip(before, after, strict=True) if old and new and new.added >= old.added]
    added = sum(new.added - old.added for old, new in pairs)
    grown = sum(new.waiting - old.waiting for old, new in pairs)
    left = min(_seconds_left(pairs, seconds), default=None)
    return Pace(
        measured_at=from_us(now_us),
        records_in=added / seconds,
        records_out=max(added - grown, 0) / seconds,
        full_at=None if left is None else from_us(now_us) + timedelta(seconds=left),
    )


def _seconds_left(pairs: Sequence[tuple[LogSize, LogSize]], seconds: float) -> Iterator[float]:
    """For each shard that grows: when it is at its limit."""
    for old, new in pairs:
        growth = (new.waiting - old.waiting) / seconds
        if new.limit and growth > 0:
            yield max(new.limit - new.waiting, 0) / growth


class Meter:
    """Measures the pace from one call to the next, and leaves it in Redis for others to see."""

    def __init__(self, settings: Settings, hot: HotStore) -> None:
        self._settings = settings
        self._hot = hot
        self._before: tuple[int, Sizes] | None = None

    def measure(self) -> Pace | None:
        """The pace since the call before; None at the first."""
        now_us, found = self._hot.run(calls.now()), sizes(self._settings, self._hot)
        before, self._before = self._before, (now_us, found)
        if before is None or now_us <= before[0]:
            return None
        pace = pace_between(before[1], found, (now_us - before[0]) / 1e6, now_us)
        with suppress(HotStoreFull):
            self._hot.run(calls.note_pace(pace))
        return pace


def noted(hot: HotStore, now_us: int) -> Pace | None:
    """What a daemon measured last; None if that is some minutes ago."""
    pace = hot.run(calls.noted_pace())
    return pace if pace and from_us(now_us) - pace.measured_at < _FRESH else None


def enforce_limit(settings: Settings, hot: HotStore) -> int | None:
    """Loads the library again where it holds shards to another limit than these settings say; gives that limit.

    None: it is as it should be, or the library is newer than this package's, and so not for it to load.
    """
    loaded = hot.run(calls.log_size(shard_keys(0))).limit
    if loaded == settings.shard_backlog or hot.run(calls.version()) > library.shipped_version():
        return None
    hot.load_library()
    return loaded
