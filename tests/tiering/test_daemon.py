"""The daemon as a process: it carries, drains when it is told to stop, waits for servers that are down."""

from __future__ import annotations

import io
import json
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any
from uuid import UUID

import psycopg
import pytest

from banshee_memory import (
    Backlog,
    ColdStoreUnavailable,
    FlushReport,
    HotStoreUnavailable,
    MemoryPlugin,
    NewMessage,
    Settings,
)
from banshee_memory.cold.client import ColdStore
from banshee_memory.hot import calls
from banshee_memory.hot.client import HotStore
from banshee_memory.hot.keys import shard_keys
from banshee_memory.tiering import daemon as daemons
from banshee_memory.tiering.daemon import Daemon, Job, logger
from banshee_memory.tiering.watch import JobWatch
from tests.banshee import started
from tests.own_servers import own_database, own_redis

SETTINGS = Settings()
WATCH = JobWatch("flush", 1.0, 1.0, time.monotonic)
SECRET = "what nobody may read in a log"


@pytest.fixture(scope="module")
def urls(redis_url: str, database_url: str) -> Iterator[tuple[str, str]]:
    with own_redis(like=redis_url) as redis, own_database(database_url, SETTINGS) as database:
        yield redis, database


@pytest.fixture(scope="module")
def memory(urls: tuple[str, str]) -> Iterator[MemoryPlugin]:
    redis, database = urls
    with MemoryPlugin(database, redis, settings=SETTINGS) as plugin:
        yield plugin


@pytest.fixture(scope="module")
def hot(urls: tuple[str, str]) -> Iterator[HotStore]:
    store = HotStore(urls[0], SETTINGS)
    yield store
    store.close()


def waiting(hot: HotStore) -> int:
    return sum(hot.run_all([calls.log_length(shard_keys(shard)) for shard in range(SETTINGS.shards)]))


def until(true: Callable[[], object], within: float = 20.0) -> None:
    deadline = time.monotonic() + within
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.01)


@contextmanager
def logged(process: subprocess.Popen[str]) -> Iterator[list[dict[str, Any]]]:
    """Stops a daemon when the block ends; its log is in the list then."""
    log: list[dict[str, Any]] = []
    yield log
    process.terminate()
    said = process.communicate(timeout=30)[1]
    assert "Traceback" not in said
    log += [json.loads(line) for line in said.splitlines()]


def lines(process: subprocess.Popen[str]) -> Iterator[dict[str, Any]]:
    """The log as it comes."""
    assert process.stderr
    for line in process.stderr:
        assert "Traceback" not in line
        yield json.loads(line)


def event_of(process: subprocess.Popen[str], event: str) -> dict[str, Any]:
    """The next line of the log about that."""
    return next(line for line in lines(process) if line["event"] == event)


def test_it_carries_and_keeps_partitions_ahead(
    memory: MemoryPlugin, hot: HotStore, urls: tuple[str, str], agent: UUID
) -> None:
    memory.conversations.save_message(agent, "user", SECRET)
    with started("daemon", urls=urls) as process:
        with logged(process) as log:
            until(lambda: not waiting(hot))
            memory.memories.store_memory(agent, "fact", SECRET, SECRET)
            until(lambda: not waiting(hot))
            until(lambda: partitions(urls[1]) >= 2 * (SETTINGS.partitions_ahead + 1))
        assert process.returncode == 0
    assert {"started", "maintained", "stopping", "stopped"} <= {line["event"] for line in log}
    assert SECRET not in json.dumps(log)
    assert memory.conversations.get_history(agent)[0].content == SECRET


def partitions(database_url: str) -> int:
    with psycopg.connect(database_url) as database:
        counted = "SELECT count(*) FROM pg_inherits WHERE inhparent = ANY (%s::regclass[])"
        parents = ["emotional_events", "conversation_messages"]
        return int(database.execute(counted, [parents]).fetchall()[0][0])


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT], ids=["SIGTERM", "SIGINT"])
def test_it_drains_when_it_is_told_to_stop(
    memory: MemoryPlugin, hot: HotStore, urls: tuple[str, str], agent: UUID, number: int
) -> None:
    with started("daemon", urls=urls) as process:
        event_of(process, "maintained")
        for _ in range(20):
            batch = [NewMessage(role="user", content="x" * 100)] * 1_000
            memory.conversations.save_messages(agent, batch)
        process.send_signal(number)
        stopped = event_of(process, "stopped")
        assert process.wait(30) == 0
    assert stopped["level"] == "info"
    assert not waiting(hot)
    assert memory.conversations.get_conversation_stats(agent).total_messages == 20_000


def test_two_beside_each_other(memory: MemoryPlugin, hot: HotStore, urls: tuple[str, str], agent: UUID) -> None:
    with started("daemon", urls=urls) as one, started("daemon", urls=urls) as other, logged(one), logged(other):
        for process in (one, other):
            event_of(process, "started")
        for number in range(50):
            memory.conversations.save_messages(agent, [NewMessage(role="user", content=f"{number}")] * 20)
        until(lambda: not waiting(hot))
    assert (one.returncode, other.returncode) == (0, 0)
    assert memory.conversations.get_conversation_stats(agent).total_messages == 1_000
    memory.evict(agent)
    history = memory.conversations.get_history(agent, 2_000)
    assert [m.content for m in history] == [f"{number}" for number in range(50) for _ in range(20)]


def test_it_waits_for_servers_that_are_down(urls: tuple[str, str], tmp_path: Path) -> None:
    nowhere = f"unix://{tmp_path}/r.sock", f"postgresql:///banshee?host={tmp_path}"
    with started("daemon", urls=nowhere) as process:
        log = lines(process)
        put_off = [line for line in (next(log) for _ in range(9)) if line["event"] == "job put off"]
        assert {line["job"] for line in put_off} == {"flush", "rehydrate", "maintain", "index", "limit", "report"}
        assert all("Is it running" in line["why"] for line in put_off)
        assert process.poll() is None
        process.terminate()
        left = event_of(process, "stopped with records left in Redis")
        assert process.wait(30) == 1
    assert left["level"] == "error"
    assert "unknown" in left["left"]


def test_it_goes_on_when_redis_is_back(redis_url: str, urls: tuple[str, str], tmp_path: Path) -> None:
    with own_redis(like=redis_url) as redis:
        link = Path(redis.removeprefix("unix://"))
        away = link.with_name("away")
        link.rename(away)
        with started("daemon", urls=(redis, urls[1])) as process:
            assert event_of(process, "job put off")["error"] == "HotStoreUnavailable"
            away.rename(link)
            assert event_of(process, "job works again")["failures"] >= 1
            process.terminate()
            assert process.wait(30) == 0


def test_what_it_cannot_carry_is_left_and_told(redis_url: str, urls: tuple[str, str], agent: UUID) -> None:
    with own_redis(like=redis_url) as redis, own_database(urls[1], SETTINGS) as database:
        with MemoryPlugin(database, redis, settings=SETTINGS) as memory:
            memory.conversations.save_message(agent, "user", SECRET)
        elsewhere = f"{database}{'&' if '?' in database else '?'}port=1"
        with started("daemon", urls=(redis, elsewhere)) as process:
            event_of(process, "job put off")
            process.terminate()
            left = event_of(process, "stopped with records left in Redis")
            assert process.wait(30) == 1
        assert left["records"] == 1
        assert "Is it running" in left["why"]


def test_a_second_signal_ends_the_flush_too(urls: tuple[str, str], memory: MemoryPlugin, agent: UUID) -> None:
    with psycopg.connect(urls[1]) as holder, started("daemon", urls=urls) as process:
        event_of(process, "maintained")
        holder.execute("SELECT FROM shards FOR UPDATE")
        memory.conversations.save_message(agent, "user", "held up")
        process.terminate()
        event_of(process, "stopping")
        process.terminate()
        assert event_of(process, "stopped by a second signal")["records"] == 1
        assert process.wait(30) == 1
    memory.flush()


def test_what_a_foreign_client_wants_is_rehydrated(
    memory: MemoryPlugin, hot: HotStore, urls: tuple[str, str], agent: UUID
) -> None:
    memory.conversations.save_message(agent, "user", "hello")
    memory.evict(agent)
    keys = shard_keys(agent.int % SETTINGS.shards)
    hot.run(calls.Call(("FCALL", "banshee1_want", 1, keys.wanted, agent.bytes), int))
    with started("daemon", urls=urls) as process:
        assert event_of(process, "rehydrated")["agents"] == 1
        with logged(process):
            pass
    assert [key for key in hot.keys(f"*{agent}*") if b":messages:" in key]


# --- parts ---


class Told:
    """A log that remembers."""

    def __init__(self) -> None:
        self.said: list[tuple[str, dict[str, Any]]] = []

    def warning(self, event: str, **more: Any) -> None:
        self.said.append((event, more))

    info = error = warning


def test_a_job_that_fails_waits_longer_each_time() -> None:
    failing = True

    def work() -> None:
        if failing:
            raise HotStoreUnavailable("two\nlines")

    log = Told()
    job = Job("flush", work, log, WATCH)
    assert [job() for _ in range(8)] == [1, 2, 4, 8, 16, 30, 30, 30]
    assert log.said[0] == (
        "job put off",
        {"job": "flush", "again_in": 1, "error": "HotStoreUnavailable", "why": "two lines"},
    )
    failing = False
    assert job() is None
    assert log.said[-1] == ("job works again", {"job": "flush", "failures": 8})
    failing = True
    assert job() == 1


def test_a_job_that_fails_while_it_stops_holds_nothing_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    hot = HotStore(f"unix://{tmp_path}/r.sock", SETTINGS)
    cold = ColdStore(f"postgresql:///banshee?host={tmp_path}", SETTINGS)

    def fails_late() -> int:
        daemon.stop()
        time.sleep(0.2)  # the schedule ends meanwhile
        raise HotStoreUnavailable("gone")

    daemon = Daemon(SETTINGS, hot, cold, Told(), rehydrate_wanted=fails_late)
    monkeypatch.setattr(daemon, "_stopped_by_signals", nullcontext)
    thread = threading.Thread(target=daemon.run, daemon=True)
    thread.start()
    thread.join(20)
    assert not thread.is_alive()


def test_a_job_that_has_ended_is_not_begun() -> None:
    begun: list[bool] = []
    job = Job("flush", lambda: begun.append(True), Told(), WATCH)
    job.end()
    assert job() is None
    assert not begun


def test_a_defect_is_told_without_its_message() -> None:
    def work() -> None:
        raise RuntimeError(SECRET)

    log = Told()
    assert Job("flush", work, log, WATCH)() == 1
    ((_, told),) = log.said
    assert told["error"] == "RuntimeError"
    assert told["at"][-1].startswith("test_daemon.py:")
    assert SECRET not in str(told)


class Sweeps:
    """A drain that carries a thousand records at a time, until `left` of them are left."""

    def __init__(self, *reports: FlushReport) -> None:
        self.reports = list(reports)
        self.done = self.held = self.waited = 0

    def sweep(self) -> FlushReport:
        self.done += 1
        return self.reports.pop(0)


@pytest.mark.parametrize(
    ("backlog", "reports", "sweeps"),
    [
        (5_000, [FlushReport(messages=1), FlushReport(duplicates=1), FlushReport(poisoned=1), FlushReport()], 4),
        (999, [FlushReport(messages=5_000)], 1),
        (5_000, [FlushReport()], 1),  # others hold the shards
    ],
    ids=["much is left", "little is left", "nothing can be carried"],
)
def test_a_flush_goes_on_while_much_is_left(
    monkeypatch: pytest.MonkeyPatch, backlog: int, reports: list[FlushReport], sweeps: int
) -> None:
    found = Backlog(records=backlog, bytes=0, oldest_age=None)
    monkeypatch.setattr(daemons, "backlog", lambda settings, hot: found)
    drain = Sweeps(*reports)
    daemon = Daemon(SETTINGS, None, None, Told(), rehydrate_wanted=lambda: 0)  # type: ignore[arg-type]
    monkeypatch.setattr(daemon, "_drain", drain)
    daemon.flush()
    assert drain.done == sweeps


def test_a_flush_that_fails_at_the_end_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    class Down:
        def flush(self) -> FlushReport:
            raise ColdStoreUnavailable("PostgreSQL is down")

    log = Told()
    daemon = Daemon(SETTINGS, None, None, log, rehydrate_wanted=lambda: 0)  # type: ignore[arg-type]
    monkeypatch.setattr(daemon, "_drain", Down())
    monkeypatch.setattr(daemon, "_backlog", lambda: {"records": 3})
    assert not daemon._carried_the_rest()
    assert log.said == [("stopped with records left in Redis", {"why": "PostgreSQL is down", "records": 3})]


def test_the_log_is_json_where_nobody_looks() -> None:
    stream = io.StringIO()
    logger(stream).info("said", number=1)
    line = json.loads(stream.getvalue())
    assert (line["event"], line["number"], line["level"]) == ("said", 1, "info")
    assert line["timestamp"].endswith("Z")


def test_the_log_is_for_people_on_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    stream = io.StringIO()
    monkeypatch.setattr(stream, "isatty", lambda: True)
    logger(stream).info("said", number=1)
    assert "said" in stream.getvalue()
    assert not stream.getvalue().startswith("{")


def test_it_is_imported_without_its_scheduler() -> None:
    code = "import sys, banshee_memory.tiering.daemon; print({'apscheduler', 'structlog'} & {*sys.modules})"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "set()\n"
