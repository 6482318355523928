"""The partitions of a long diary come in lots: what was made before a flush is cut off need not be made again."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any
from uuid import UUID

import msgspec
import pytest

from banshee_memory.cold import partitions, reads
from banshee_memory.cold.client import ColdStore
from banshee_memory.cold.drain import EventRow
from banshee_memory.cold.partitions import EVENTS
from banshee_memory.errors import ColdStoreUnavailable
from banshee_memory.settings import Settings
from banshee_memory.stamps import to_us
from tests.cold.making import NOON, event, write

DAYS, LOT = 120, 50


@pytest.fixture
def store(fresh_url: str, settings: Settings) -> Iterator[ColdStore]:
    # One connection, which the flush holds when it finds out what is missing.
    store = ColdStore(fresh_url, msgspec.structs.replace(settings, db_max_connections=1, connect_timeout=2))
    yield store
    store.close()


def diary(agent: UUID) -> list[EventRow]:
    felt = [event(agent, n, at_us=to_us(NOON) - n * 86_400_000_000) for n in range(DAYS)]
    return [EventRow.of(one, {}) for one in felt]


def made(store: ColdStore) -> int:
    return store.fetch(reads.overview()).partitions.get(EVENTS, 0)


def test_lots_before_the_one_that_failed_stay(store: ColdStore, agent: UUID, monkeypatch: pytest.MonkeyPatch) -> None:
    lots: list[int] = []
    create = partitions._ensure_slots

    def fails_at_the_third(connection: Any, table: str, slots: Iterable[int]) -> int:
        lots.append(len(list(slots)))
        if len(lots) == 3:
            raise ColdStoreUnavailable("cut off")
        return create(connection, table, slots)

    monkeypatch.setattr(partitions, "_ensure_slots", fails_at_the_third)
    with pytest.raises(ColdStoreUnavailable, match="cut off"):
        write(store, *diary(agent))
    assert lots == [LOT, LOT, DAYS - 2 * LOT]
    assert made(store) == 2 * LOT
    assert store.fetch(reads.event_page(agent, DAYS)).placed == []

    assert write(store, *diary(agent)).events == DAYS
    assert made(store) == DAYS
    assert len(store.fetch(reads.event_page(agent, DAYS)).placed) == DAYS
