"""Forgetting a large agent holds nobody up: no lock in PostgreSQL after the moment, no long call in Redis."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from typing import Any, TypeVar
from uuid import UUID, uuid4

import psycopg
import pytest
from psycopg.conninfo import make_conninfo

from banshee_memory import NewMessage
from banshee_memory.cold import partitions
from banshee_memory.failpoints import armed
from banshee_memory.hot import calls, erasing, wire
from banshee_memory.hot.calls import Call
from banshee_memory.hot.client import HotStore
from banshee_memory.stamps import to_us
from banshee_memory.tiering.forgetting import Forgetting
from tests.own_servers import CLOCK
from tests.tiering.test_forgetting import assert_new, forget, traces
from tests.tiers import Tiers

T = TypeVar("T")
MESSAGES, WEEKS = 1_000_000, 10
FORGETTING = "forgetting"

FILL = """
INSERT INTO conversation_messages (agent_id, created_at, stamp, id, role, content, tokens_used)
SELECT %(agent)s, at, (extract(epoch FROM at) * 1000)::bigint << 16, gen_random_uuid(), 'user', 'word ' || n, 1
FROM (SELECT n, %(start)s + n * %(step)s::interval AS at FROM generate_series(0, %(last)s) AS n) AS said
"""
WAITING = """
SELECT waiting.application_name, waiting.query
FROM pg_stat_activity AS waiting, unnest(pg_blocking_pids(waiting.pid)) AS holder
     JOIN pg_stat_activity AS holding ON holding.pid = holder
WHERE waiting.wait_event_type = 'Lock' AND holding.application_name = %s AND waiting.application_name <> %s
"""


def fill(tiers: Tiers, url: str, agent: UUID) -> None:
    """A million messages over ten partitions, as flushes would have left them."""
    start = datetime.now(UTC) - timedelta(weeks=WEEKS)
    step = timedelta(weeks=WEEKS) / (MESSAGES + 1)
    with tiers.cold.connection() as connection:
        partitions.ensure(
            connection, partitions.MESSAGES, [to_us(start + timedelta(weeks=n)) for n in range(WEEKS + 1)]
        )
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute(FILL, {"agent": agent, "start": start, "step": step, "last": MESSAGES - 1})
        connection.execute("INSERT INTO agents (agent_id, total_messages) VALUES (%s, %s)", (agent, MESSAGES))
        last = (to_us(datetime.now(UTC)) // 1_000) << 16
        connection.execute("UPDATE shards SET flushed_stamp = greatest(flushed_stamp, %s)", (last,))


class Life:
    """Another agent of the same shard: it speaks, is flushed, evicted and read, again and again."""

    def __init__(self, tiers: Tiers, beside: UUID) -> None:
        self.agent = UUID(int=uuid4().int >> 32 << 32 | beside.int & 0xFFFFFFFF)
        self.rounds = 0
        self._tiers = tiers

    def live(self, over: threading.Event) -> None:
        """Until it is over, and once more."""
        while True:
            last = over.is_set()
            text = f"number {self.rounds}"
            self._tiers.conversations.save_message(self.agent, "user", text, tokens_used=1)
            self._tiers.flush(self.agent)
            self._tiers.drop(self.agent)
            self.rounds += 1
            assert [m.content for m in self._tiers.conversations.get_history(self.agent, 1)] == [text]
            assert self._tiers.conversations.get_conversation_stats(self.agent).total_messages == self.rounds
            if last:
                return


def watch(url: str, from_when: threading.Event, over: threading.Event) -> list[Any]:
    """Who waited for a lock of the forgetting one."""
    from_when.wait()
    found: list[Any] = []
    with psycopg.connect(url, autocommit=True) as connection:
        while not over.is_set():
            found += connection.execute(WAITING, (FORGETTING, FORGETTING)).fetchall()
    return found


@pytest.mark.soak
def test_a_million_messages_stall_nobody(tiers: Tiers, intruder: Tiers, own_urls: tuple[str, str]) -> None:
    redis, database = own_urls
    agent = uuid4()
    fill(tiers, database, agent)
    life = Life(intruder, agent)
    ended, over = threading.Event(), threading.Event()
    slow = Tiers(redis, make_conninfo(database, application_name=FORGETTING), tiers.settings, clock=CLOCK)
    chunks: list[int] = []

    def progress(kind: str, count: int) -> None:
        if kind == "messages":
            chunks.append(count)

    with ThreadPoolExecutor(2) as pool:
        waited = pool.submit(watch, database, ended, over)
        lived = pool.submit(life.live, over)
        try:
            with armed(lambda name: ended.set() if name == "forget.life_ended" else None):
                report = Forgetting(slow.settings, slow.hot, slow.cold, progress).forget(agent)
        finally:
            ended.set()
            over.set()
        lived.result()
        assert waited.result() == []
    slow.close()
    assert (report.messages, report.totals, report.left) == (MESSAGES, 1, 0)
    assert max(chunks) <= 2_000
    assert life.rounds > 3
    assert traces(tiers, own_urls, agent) == []
    assert_new(tiers, agent)


class CountingHotStore(HotStore):
    """A hot store that notes how much each call brings along."""

    def __init__(self, *args: Any, **more: Any) -> None:
        super().__init__(*args, **more)
        self.words: list[int] = []

    def run(self, call: Call[T]) -> T:
        self.words.append(len(call.command))
        return super().run(call)


@pytest.mark.soak
def test_no_call_to_redis_is_large(tiers: Tiers, own_urls: tuple[str, str], agent: UUID) -> None:
    """100,000 messages and 10,000 memories that are not flushed."""
    keys = tiers.keys(agent)
    body = wire.pack(wire.MemoryBody("x" * 50, 0.5))
    for n in range(100):
        names = [f"k{n} {m}" for m in range(100)]
        tiers.hot.run_all([calls.store_memory(keys, "fact", name, body, None, how="blind") for name in names])
        said = [NewMessage(role="user", content=f"word {n} {m}") for m in range(1_000)]
        tiers.conversations.save_messages(agent, said)
    hot = CountingHotStore(own_urls[0], tiers.settings, clock=CLOCK)
    report = Forgetting(tiers.settings, hot, tiers.cold).forget(agent)
    hot.close()
    assert (report.log_entries, report.left) == (110_000, 0)
    assert report.keys == 10_001
    assert max(hot.words) <= 2 * erasing.MOST_MEMBERS + 20
    assert forget(tiers, agent).left == 0
    assert_new(tiers, agent)
