"""Clients whose connections the simulation cuts, and between whose round trips it lets others take steps."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager
from datetime import datetime
from typing import TYPE_CHECKING, Any, TypeVar

from banshee_memory.cold.client import ColdStore
from banshee_memory.cold.drain import Drain
from banshee_memory.cold.reads import Query
from banshee_memory.errors import BansheeError, ColdStoreUnavailable, HotStoreUnavailable
from banshee_memory.hot.calls import Call
from banshee_memory.hot.client import HotStore
from tests.simulator.retention import take_down

if TYPE_CHECKING:
    from tests.simulator.world import World

T = TypeVar("T")


class CutHotStore(HotStore):
    """Tells the simulation what Redis carried out, also where the caller never hears of it."""

    world: World | None = None

    def run(self, call: Call[T]) -> T:
        self._begin()
        result = super().run(call)
        self._told([call], [result])
        return result

    def run_all(self, batch: Sequence[Call[Any]]) -> list[Any]:
        self._begin()
        some = self._part(batch)
        results = super().run_all(some)
        self._told(some, results, is_cut=len(some) < len(batch))
        return results

    def try_all(self, batch: Sequence[Call[Any]]) -> list[Any]:
        self._begin()
        some = self._part(batch)
        results = super().try_all(some)
        self._told(some, results, is_cut=len(some) < len(batch))
        return results

    def _begin(self) -> None:
        if self.world is not None:
            self.world.between()
            if self.world.is_cut():
                self.world.tell("cut before a call to redis")
                raise HotStoreUnavailable("cut before the call")

    def _part(self, batch: Sequence[Call[Any]]) -> Sequence[Call[Any]]:
        """All of it, or what was sent of it when the connection was cut."""
        if len(batch) > 1 and self.world is not None and self.world.is_cut():
            return batch[: self.world.random.randrange(1, len(batch))]
        return batch

    def _told(self, batch: Sequence[Call[Any]], results: Sequence[Any], *, is_cut: bool = False) -> None:
        if self.world is None:
            return
        for call, result in zip(batch, results, strict=True):
            if not isinstance(result, BansheeError):
                self.world.do(call, result)
        if is_cut or self.world.is_cut():
            self.world.tell("cut after a call to redis")
            raise HotStoreUnavailable("cut before the reply")


class CutColdStore(ColdStore):
    """The same for PostgreSQL: nothing is heard of it, or it cannot be written to. A write that has begun is cut off at
    the failpoints of the flush."""

    world: World | None = None

    def fetch(self, query: Query[T]) -> T:
        if self.world is not None and self.world.is_cut():
            self.world.tell("cut before a call to postgresql")
            raise ColdStoreUnavailable("cut")
        return super().fetch(query)

    def drain(self, shards: Sequence[int], wait: float | None = None) -> AbstractContextManager[Drain]:
        self._require_connection()
        return super().drain(shards, wait)

    def prepare_partitions(self, now: datetime) -> int:
        self._come_between()
        return super().prepare_partitions(now)

    def drop_expired(self, now: datetime) -> list[str]:
        self._come_between()
        if self.world is not None:
            take_down(self.world)
        return super().drop_expired(now)

    def compact_rollups(self, now: datetime) -> int:
        self._come_between()
        return super().compact_rollups(now)

    def _come_between(self) -> None:
        if self.world is not None:
            self.world.between()
        self._require_connection()

    def _require_connection(self) -> None:
        if self.world is not None and self.world.is_cut_off():
            self.world.tell("cut off from postgresql")
            raise ColdStoreUnavailable("cut off")
