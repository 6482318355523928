"""Seeding: where the stamps of a shard begin, on a Redis that is new or has lost its logs.

A stamp must lie after every stamp that PostgreSQL has of the shard, or what is written now would lose against what was
written before. Functions refuse to write to a log that is not there; whoever is refused asks PostgreSQL, and makes it.
"""

from __future__ import annotations

from banshee_memory.cold import reads
from banshee_memory.failpoints import failpoint
from banshee_memory.hot import calls, greeting
from banshee_memory.hot.keys import shard_keys
from banshee_memory.settings import Settings
from banshee_memory.tiering.steps import Steps


def seed(settings: Settings) -> Steps[None]:
    """Makes the logs that are not there. Any number may do so at once: each log is made once.

    PostgreSQL is asked first, so a client with another number of shards is refused before it writes anything.
    """
    stamps = yield reads.shard_stamps()
    yield calls.fix_shards(settings.shards)
    failpoint("seed.shards_fixed")
    greeting.check_shards(settings.shards, (yield calls.fixed_shards()))
    yield [calls.seed(shard_keys(shard), stamp) for shard, stamp in stamps]
    failpoint("seed.logs_made")
