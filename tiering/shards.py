"""Asking every shard: one whose keys somebody broke (put another type under) must not keep the others from anything."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

from banshee_memory.errors import BansheeError
from banshee_memory.hot.calls import Call
from banshee_memory.hot.client import HotStore
from banshee_memory.hot.faults import ForeignKeyError

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
