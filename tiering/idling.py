"""Letting go of what nobody used for a while, before Redis does so by itself when `hot_ttl` is over."""

from __future__ import annotations

import re
from collections.abc import Iterable
from itertools import groupby

from banshee_memory.hot import calls
from banshee_memory.records import EvictReport, FlushReport
from banshee_memory.tiering.steps import Steps

# The keys of agents; a shard's own have no TTL, and others under our prefix are not ours to drop.
_AGENT_S = re.compile(rb"banshee:\{\d+\}:(?:state|messages|events|memories|memory):")


def evict_idle(idle: float, flushed: FlushReport) -> Steps[EvictReport]:
    """Drops every clean key of an agent that was not used for so many seconds, a page of keys at a time."""
    dropped = kept = 0
    cursor = b"0"
    while True:
        cursor, keys = yield calls.scan(cursor, "banshee:{*}:*:*")
        ours = [key for key in keys if _AGENT_S.match(key)]
        ages = yield [calls.idle_time(key) for key in ours]
        for several in _by_shard(key for key, age in zip(ours, ages, strict=True) if age is not None and age >= idle):
            gone, stays = yield calls.evict(several)
            dropped, kept = dropped + gone, kept + stays
        if cursor == b"0":
            return EvictReport(flushed=flushed, dropped=dropped, kept=kept)


def _by_shard(keys: Iterable[bytes]) -> list[list[bytes]]:
    return [list(several) for _, several in groupby(sorted(keys), key=_shard)]


def _shard(key: bytes) -> bytes:
    return key[: key.index(b"}")]
