"""Redis is killed while clients write: what was SYNCED is there; of what was HOT the end is missing, and is told."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from uuid import UUID, uuid4

import pytest

from banshee_memory import Durability, DurabilityUnavailable, HotStoreUnavailable, MemoryPlugin, Settings
from banshee_memory.stamps import from_us
from tests.own_servers import own_database
from tests.redis_servers import Redises, RedisServer, redises
from tests.servers import until

SETTINGS = Settings(shards=2, message_retention_days=None, event_retention_days=None)
WRITERS = 4
WRITTEN = 50_000
"""Bytes of its file: some hundred messages."""


@pytest.fixture
def servers(redis_url: str) -> Iterator[Redises]:
    with redises(redis_url) as every:
        yield every


@pytest.fixture
def server(servers: Redises) -> RedisServer:
    """Synced every second, as most are."""
    only = servers.new(appendfsync="everysec")
    servers.front.lead_to(only)
    return only


@pytest.fixture
def memory(servers: Redises, server: RedisServer, database_url: str) -> Iterator[MemoryPlugin]:
    with (
        own_database(database_url, SETTINGS) as database,
        MemoryPlugin(database, servers.front.url, settings=SETTINGS) as plugin,
    ):
        yield plugin


class Load:
    """Writers, and what they were told is saved."""

    def __init__(self, memory: MemoryPlugin, durability: Durability) -> None:
        self.acknowledged: list[tuple[UUID, UUID]] = []
        self._memory, self._durability = memory, durability
        self._come = threading.Condition()

    def write(self, agent: UUID) -> None:
        """Message after message, until the server is gone."""
        try:
            while True:
                saved = self._memory.conversations.save_message(agent, "user", "x", durability=self._durability)
                with self._come:
                    self.acknowledged.append((agent, saved))
                    self._come.notify_all()
        except (HotStoreUnavailable, DurabilityUnavailable):
            return

    def wait_for(self, count: int) -> None:
        """Until so many are acknowledged."""
        with self._come:
            assert self._come.wait_for(lambda: len(self.acknowledged) >= count, timeout=60)


def missing(memory: MemoryPlugin, load: Load) -> list[UUID]:
    """What was acknowledged and is not there, whatever tier it should be in."""
    agents = {agent for agent, _ in load.acknowledged}
    there = {message.id for agent in agents for message in memory.conversations.get_history(agent, 100_000)}
    return [saved for _, saved in load.acknowledged if saved not in there]


@pytest.mark.parametrize("kills", [2, pytest.param(12, marks=pytest.mark.soak)])
def test_what_was_synced_is_there(memory: MemoryPlugin, server: RedisServer, kills: int) -> None:
    if not server.can_sync:
        pytest.skip("this server has no WAITAOF")
    for n in range(kills):
        load = Load(memory, Durability.SYNCED)
        with ThreadPoolExecutor(WRITERS) as pool:
            written = [pool.submit(load.write, uuid4()) for _ in range(WRITERS)]
            load.wait_for(40 + 7 * n)
            server.kill()
            for future in written:
                future.result()
        server.start()
        assert missing(memory, load) == []
        if n % 2:
            memory.flush()
            assert missing(memory, load) == []


def until_larger(file: Path, size: int) -> None:
    """While an fsync hangs, a server acknowledges what it writes up to two seconds later."""
    until(lambda: file.stat().st_size > size)


@pytest.mark.parametrize("cuts", [1, pytest.param(8, marks=pytest.mark.soak)])
def test_of_what_was_hot_the_end_is_missing_and_told(memory: MemoryPlugin, server: RedisServer, cuts: int) -> None:
    """A power cut: what the kernel had and the disk had not is cut from the file, as `everysec` may lose it."""
    for _ in range(cuts):
        load = Load(memory, Durability.HOT)
        file = max(server.files.glob("*.incr.aof"))
        begun = file.stat().st_size
        with ThreadPoolExecutor(WRITERS) as pool:
            written = [pool.submit(load.write, uuid4()) for _ in range(WRITERS)]
            load.wait_for(500)
            until_larger(file, begun + WRITTEN)
            seconds, us = server.command("TIME")
            synced = file.stat().st_size
            load.wait_for(len(load.acknowledged) + 500)
            server.kill()
            for future in written:
                future.result()
        with file.open("r+b") as opened:
            opened.truncate(synced)
        server.start()
        lost = missing(memory, load)
        assert lost, "the end of the file was cut"
        # The file is written to a moment after the clock was read, and never before what it holds is done.
        before = from_us((seconds - 2) * 1_000_000 + us)
        assert all(from_us((saved.int >> 80) * 1_000) >= before for saved in lost), "within the window of `everysec`"
        kept = [saved for _, saved in load.acknowledged if saved not in set(lost)]
        assert kept
        found = memory.stats().recoveries[0]
        assert found.store == "redis"
        newest = max((saved.int >> 80) for saved in kept)
        assert f"after {from_us(newest * 1_000).isoformat(timespec='milliseconds')}" in found.said
        memory.flush()
        assert missing(memory, load) == lost
