"""PostgreSQL was restored to an earlier time: Redis knows that shards were flushed further than their rows say.

What is still in the logs is flushed as ever. What was flushed between that time and now is gone from PostgreSQL; of
that, what is still resident is logged again, with its own stamps and ids, so that nothing doubles. The rest is lost,
and told.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import islice

from banshee_memory.cold.drain import Drain as Rows
from banshee_memory.failpoints import failpoint
from banshee_memory.hot import failover
from banshee_memory.hot.client import HotStore
from banshee_memory.hot.keys import PREFIX, OwnedKey, owned_key, shard_keys
from banshee_memory.stamps import from_us, stamp_us
from banshee_memory.tiering.shards import ask

_KEYS_AT_ONCE = 1_000


def gone_back(hot: HotStore, held: Mapping[int, int]) -> dict[int, int]:
    """Of shards and the stamps up to which PostgreSQL has them: those that Redis knows to be flushed further, and to
    where. Those whose log is not there are left to who brings it back."""
    marks = ask(hot, [failover.flushed_mark(shard_keys(shard)) for shard in held])
    behind = {shard: mark for shard, mark in zip(held, marks, strict=True) if mark and mark > held[shard]}
    reached = ask(hot, [failover.reached(shard_keys(shard)) for shard in behind])
    return {shard: mark for (shard, mark), last in zip(behind.items(), reached, strict=True) if last is None}


def bring_back(hot: HotStore, rows: Rows) -> dict[int, int]:
    """Logs again what PostgreSQL lost, of the shards that these rows hold; gives those of which it did, with the marks
    that said so. They are lowered (`lower_marks`) once what is reported here is committed: whoever dies before that
    leaves them to the next.
    """
    behind = gone_back(hot, rows.held)
    if not behind:
        return {}
    failpoint("restore.found")
    again = 0
    keys = _owned(hot, behind)
    while page := list(islice(keys, _KEYS_AT_ONCE)):
        again += _log_again(hot, page, rows.held)
    earlier, known = min(rows.held[shard] for shard in behind), max(behind.values())
    seconds = max(stamp_us(mark) - stamp_us(rows.held[shard]) for shard, mark in behind.items()) / 1e6
    rows.keep_recovery(
        f"postgresql {earlier}-{known}",
        "postgresql",
        seconds if earlier else None,
        f"PostgreSQL went back to {_time(earlier)}; {len(behind)} shards were flushed until {_time(known)}. "
        f"{again} records that were still in Redis go there again. What was flushed in between and is not in Redis "
        "any more is lost.",
    )
    return behind


def _log_again(hot: HotStore, page: Sequence[OwnedKey], held: Mapping[int, int]) -> int:
    """How many entries were logged. Lists that are long take several calls, so that each is short."""
    count, left = 0, dict.fromkeys(page, 0)
    while left:
        replies = ask(hot, [failover.log_again(key, held[key.shard], start) for key, start in left.items()])
        told = {key: reply for key, reply in zip(left, replies, strict=True) if reply is not None}
        count += sum(logged for logged, _ in told.values())
        left = {key: start for key, (_, start) in told.items() if start is not None}
        failpoint("restore.logged_again")
    return count


def lower_marks(hot: HotStore, held: Mapping[int, int], behind: Mapping[int, int]) -> None:
    """Says of shards that PostgreSQL has them up to `held` only, where nothing that was flushed since said it."""
    if behind:
        hot.run_all([failover.mark_flushed(shard_keys(shard), held[shard], mark) for shard, mark in behind.items()])
        failpoint("restore.marked")


def _owned(hot: HotStore, shards: Mapping[int, int]) -> Iterator[OwnedKey]:
    for name in hot.keys(f"{PREFIX}{{*"):
        key = owned_key(name)
        if key is not None and key.shard in shards:
            yield key


def _time(stamp: int) -> str:
    return from_us(stamp_us(stamp)).isoformat(timespec="milliseconds") if stamp else "nothing"
