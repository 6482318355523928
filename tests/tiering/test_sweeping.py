"""The sweep beside all else: what expired or was deleted stays gone, whatever Redis still holds of it."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from typing import Any
from uuid import UUID

import pytest

from banshee_memory.cold import client
from banshee_memory.hot import calls
from banshee_memory.stamps import from_us
from banshee_memory.tiering import daemon as daemons
from banshee_memory.tiering.daemon import Daemon
from tests.hot.raw import Server
from tests.tiers import Tiers

SECOND = 1_000_000


@pytest.fixture
def server(tiers: Tiers) -> Iterator[Server]:
    server = Server(tiers.hot)
    yield server
    server.set_clock(None)


def rows(tiers: Tiers, agent: UUID) -> dict[str, bool]:
    """The keys that PostgreSQL has of an agent, and whether each is a tombstone."""
    with tiers.cold.connection() as connection:
        found = connection.execute("SELECT key, deleted FROM memory_records WHERE agent_id = %s", (agent,))
        return {str(key): bool(deleted) for key, deleted in found}


def swept(tiers: Tiers, after: timedelta = timedelta()) -> None:
    tiers.cold.sweep_memories(from_us(tiers.hot.run(calls.now())) + after)


@pytest.mark.parametrize("resident", ["read since", "clean"])
def test_a_resident_copy_does_not_bring_back_what_expired(
    tiers: Tiers, server: Server, agent: UUID, resident: str
) -> None:
    began = tiers.hot.run(calls.now())
    server.set_clock(began)
    tiers.memories.store_memory(agent, "fact", "k", "old", ttl_seconds=100)
    tiers.flush(agent)
    if resident == "read since":
        assert tiers.memories.retrieve_memory(agent, "fact", "k") == "old"
    server.set_clock(began + 101 * SECOND)
    swept(tiers)
    assert rows(tiers, agent) == {"k": True}
    tiers.flush(agent)
    assert rows(tiers, agent) == {"k": True}
    assert tiers.memories.retrieve_memory(agent, "fact", "k") is None

    assert tiers.memories.store_memory(agent, "fact", "k", "new").access_count == 0
    tiers.evict(agent)
    swept(tiers)
    assert tiers.memories.retrieve_memory(agent, "fact", "k") == "new"


@pytest.mark.parametrize("how", ["deleted", "expired"])
def test_nor_does_a_copy_of_a_server_that_was_behind(tiers: Tiers, server: Server, agent: UUID, how: str) -> None:
    keys, began = tiers.keys(agent), tiers.hot.run(calls.now())
    server.set_clock(began)
    tiers.memories.store_memory(agent, "fact", "k", "for ever")
    behind = server.command("GET", keys.memory("fact:k"))
    tiers.memories.store_memory(agent, "fact", "k", "briefly", ttl_seconds=100)
    if how == "deleted":
        tiers.memories.delete_memory(agent, "fact", "k")
    tiers.flush(agent)
    server.set_clock(began + 101 * SECOND)
    swept(tiers)
    # A replica is promoted that had not heard of it: the older value, and a log that still mentions it.
    server.command("SET", keys.memory("fact:k"), behind)
    server.command("XADD", keys.log, "*", "k", b"V" + agent.bytes, "p", "fact:k")
    tiers.flush(agent)
    tiers.drop(agent)
    assert rows(tiers, agent) == {"k": True}
    assert tiers.memories.retrieve_memory(agent, "fact", "k") is None


def test_a_known_absence_outlives_its_tombstone(tiers: Tiers, agent: UUID) -> None:
    tiers.memories.store_memory(agent, "fact", "k", "old")
    tiers.memories.delete_memory(agent, "fact", "k")
    tiers.flush(agent)
    swept(tiers, timedelta(days=7, hours=1))
    assert rows(tiers, agent) == {}
    assert tiers.memories.retrieve_memory(agent, "fact", "k") is None
    tiers.memories.store_memory(agent, "fact", "k", "new")
    tiers.evict(agent)
    assert tiers.memories.retrieve_memory(agent, "fact", "k") == "new"


def test_the_daemon_sweeps_until_all_of_it_is_done(
    tiers: Tiers, server: Server, agent: UUID, monkeypatch: pytest.MonkeyPatch
) -> None:
    began, said = tiers.hot.run(calls.now()), {}

    class Told:
        def info(self, event: str, **more: Any) -> None:
            said[event] = more

    swept(tiers)
    server.set_clock(began)
    for number in range(5):
        tiers.memories.store_memory(agent, "fact", f"{number}", number, ttl_seconds=10)
    tiers.flush(agent)
    server.set_clock(began + 11 * SECOND)
    for module in (client, daemons):
        monkeypatch.setattr(module, "SWEPT_AT_ONCE", 2)
    Daemon(tiers.settings, tiers.hot, tiers.cold, Told(), rehydrate_wanted=lambda: 0).maintain()
    assert said["maintained"]["memories_swept"] == 5
    assert rows(tiers, agent) == {f"{number}": True for number in range(5)}
