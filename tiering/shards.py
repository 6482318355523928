"""Asking every shard: one whose keys somebody broke (put another type under) must not keep the others from anything."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TypeVar

from banshee_memory.errors import BansheeError
from banshee_memory.hot import failover
from banshee_memory.hot.calls import Call
from banshee_memory.hot.client import HotStore
from banshee_memory.hot.faults import ForeignKeyError
from banshee_memory.hot.keys import ShardKeys, shard_keys

T = TypeVar("T")


def ask(hot: HotStore, plans: Sequence[Call[T]]) -> list[T | None]:
    """What each says, in one round trip; None where its key is of another type."""
    return [or_none(reply) for reply in hot.try_all(plans)]


def or_none(reply: T | BansheeError) -> T | None:
    """A reply of `HotStore.try_all`; None where the key is of another type."""
    if isinstance(reply, ForeignKeyError):
        return None
    if isinstance(reply, BansheeError):
        raise reply
    return reply


def with_logs(hot: HotStore, shards: Iterable[int]) -> list[ShardKeys]:
    """The keys of shards, each with its log where that is now: parked, until the server that it is on is recovered."""
    every = [shard_keys(number) for number in shards]
    parked = ask(hot, [failover.parked_length(keys) for keys in every])
    return [keys._replace(log=keys.parked) if count else keys for keys, count in zip(every, parked, strict=True)]
