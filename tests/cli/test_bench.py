"""`banshee bench`: what it tells, and that it leaves nothing behind, however it ends."""

from __future__ import annotations

import json
import re
import signal
import subprocess
import time
from uuid import UUID

import psycopg
import pytest
import redis

from banshee_memory import MemoryPlugin
from banshee_memory.cli import workload
from banshee_memory.errors import HotStoreUnavailable
from banshee_memory.settings import Settings
from tests.banshee import COMMAND, environment
from tests.cli.conftest import Run
from tests.own_servers import own_database, own_redis

OPERATIONS = list(workload.calls(MemoryPlugin(), [UUID(int=1)], [UUID(int=1)]))
TABLES = ("agents", "emotional_states", "memory_records", "emotional_events", "conversation_messages")


def measured_as(told: str) -> UUID:
    """The agent that is named on standard error."""
    found = re.search(r"^As agent (\S+)\.$", told, re.MULTILINE)
    assert found
    return UUID(found[1])


def assert_nothing_is_left(agent: UUID, urls: tuple[str, str]) -> None:
    with redis.Redis.from_url(urls[0]) as client:
        assert not list(client.scan_iter(f"*{agent}*", count=1_000))
        found = client.scan_iter(
            "banshee:*:log", count=1_000, _type="STREAM"
        )  # other tests break logs of these servers
        logs = [entry for log in found for entry in client.xrange(log)]
        assert not [fields for _, fields in logs if fields[b"k"][1:] == agent.bytes]
    with psycopg.connect(urls[1]) as connection:
        for table in TABLES:
            assert not connection.execute(f"SELECT FROM {table} WHERE agent_id = %s", (agent,)).fetchall()
        assert connection.execute("SELECT FROM forgotten WHERE agent_id = %s", (agent,)).fetchall()


def test_each_operation_is_told_beside_the_floor(run: Run, urls: tuple[str, str]) -> None:
    done = run("bench", "--rounds", "1", "--yes")
    for name in ("PING, bare", *OPERATIONS):
        assert re.search(rf"^\s+{re.escape(name)}\s+[\d.,]+\s+[\d.,]+\s+[\d.]+$", done.stdout, re.MULTILINE), name
    assert_nothing_is_left(measured_as(done.stderr), urls)


def test_as_json(run: Run) -> None:
    found = json.loads(run("bench", "--rounds", "1", "--yes", "--json").stdout)
    assert [row["operation"] for row in found][2:] == OPERATIONS
    assert all(0 < row["p50"] <= row["p99"] and row["floors"] > 0 for row in found)


def test_servers_that_are_named_are_written_to_only_after_a_yes(run: Run) -> None:
    done = run("bench", "--rounds", "1", code=1, stdin="n\n")
    assert "Write to these servers" in done.stderr
    assert "As agent" not in done.stderr


def test_a_failure_leaves_nothing(run: Run, urls: tuple[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise HotStoreUnavailable("the cable was pulled")

    calls = workload.calls
    monkeypatch.setattr(workload, "calls", lambda *given: calls(*given) | {"save_message": fail})
    done = run("bench", "--yes", code=1)
    assert "the cable was pulled" in done.stderr
    assert_nothing_is_left(measured_as(done.stderr), urls)


def wait_until_it_writes(agent: UUID, urls: tuple[str, str]) -> None:
    """Until there is something of the agent to clear away."""
    deadline = time.monotonic() + 30
    with redis.Redis.from_url(urls[0]) as client:
        while not list(client.scan_iter(f"*{agent}*", count=1_000)):
            assert time.monotonic() < deadline
            time.sleep(0.01)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM], ids=["interrupted", "terminated"])
def test_whoever_is_stopped_leaves_nothing(number: signal.Signals, urls: tuple[str, str]) -> None:
    with subprocess.Popen(
        [*COMMAND, "bench", "--rounds", "10000", "--yes"], stderr=subprocess.PIPE, text=True, env=environment(urls)
    ) as process:
        assert process.stderr
        agent = measured_as(process.stderr.readline())
        wait_until_it_writes(agent, urls)
        process.send_signal(number)
        said = process.stderr.read()
    assert process.returncode == 130
    assert said == "banshee: interrupted\n"
    assert_nothing_is_left(agent, urls)


def test_a_log_that_is_more_than_half_full_is_left_alone(redis_url: str, database_url: str) -> None:
    limited = Settings(backlog_limit=640)
    with own_redis(like=redis_url) as hot, own_database(database_url, limited) as cold:
        with MemoryPlugin(cold, hot, settings=limited) as memory:
            for _ in range(6):
                memory.conversations.save_message(UUID(int=7), "user", "Hello.")
        done = subprocess.run(
            [*COMMAND, "bench", "--yes"],
            capture_output=True,
            text=True,
            check=False,
            env=environment((hot, cold), BANSHEE_BACKLOG_LIMIT="640"),
        )
    assert done.returncode == 1
    assert "Nothing was written: the log of a shard is 60% full" in done.stderr
