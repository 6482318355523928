"""What the daemon says over HTTP, asked of real processes; and when it says that its own jobs are broken."""

from __future__ import annotations

import json
import re
import socket
import struct
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from http.client import HTTPResponse
from typing import Any, NamedTuple
from urllib.error import HTTPError
from urllib.request import Request, urlopen
from uuid import UUID

import psycopg
import pytest
from prometheus_client.parser import text_string_to_metric_families
from psycopg import sql

from banshee_memory import (
    Backlog,
    ColdStoreUnavailable,
    ConfigurationError,
    FlushReport,
    MemoryPlugin,
    NewMessage,
    Settings,
)
from banshee_memory.tiering.endpoints import address_of, listening
from banshee_memory.tiering.watch import OBSERVE_EVERY, HotSight, JobWatch, Watch
from tests.banshee import ran, ran_here, started
from tests.own_servers import own_database, own_redis, throw_out

SETTINGS = Settings()
SECRET = "what nobody may read in a metric"


@pytest.fixture(scope="module")
def urls(redis_url: str, database_url: str) -> Iterator[tuple[str, str]]:
    with own_redis(like=redis_url) as redis, own_database(database_url, SETTINGS) as database:
        yield redis, database


@pytest.fixture(scope="module")
def memory(urls: tuple[str, str]) -> Iterator[MemoryPlugin]:
    with MemoryPlugin(urls[1], urls[0], settings=SETTINGS) as plugin:
        yield plugin


class Answer(NamedTuple):
    status: int
    kind: str
    text: str

    @property
    def json(self) -> Any:
        return json.loads(self.text)


def asked(url: str, method: str = "GET") -> Answer:
    """One second is less than any call to a store may take: an answer never waits for one."""
    response: HTTPResponse | HTTPError
    try:
        response = urlopen(Request(url, method=method), timeout=1)
    except HTTPError as exc:
        response = exc
    with response:
        return Answer(response.status or 0, response.headers["Content-Type"], response.read().decode())


def until(true: Callable[[], object], within: float = 90.0) -> None:
    deadline = time.monotonic() + within
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def listening_at(process: subprocess.Popen[str]) -> str:
    assert process.stderr
    said = (json.loads(line) for line in process.stderr)
    return str(next(line["url"] for line in said if line["event"] == "listening"))


def values(url: str) -> dict[str, float]:
    """Every sample as `name{label}`; of the labels the values only, in order."""
    found = {}
    for family in text_string_to_metric_families(asked(f"{url}/metrics").text):
        for sample in family.samples:
            labels = ",".join(sorted(sample.labels.values()))
            found[f"{sample.name}{{{labels}}}" if labels else sample.name] = sample.value
    return found


def ready(url: str) -> bool:
    return asked(f"{url}/readyz").status == 200


def test_a_daemon_at_work(memory: MemoryPlugin, urls: tuple[str, str], agent: UUID) -> None:
    with started("daemon", "--listen", "127.0.0.1:0", urls=urls) as process:
        url = listening_at(process)
        until(lambda: ready(url))
        memory.conversations.save_messages(agent, [NewMessage(role="user", content=SECRET)] * 30)
        until(lambda: values(url).get("banshee_flushed_records_total{messages}") == 30)
        healthy, metrics = asked(f"{url}/healthz"), asked(f"{url}/metrics")
        found = values(url)
    assert healthy.status == 200
    assert healthy.json["status"] == "ok"
    assert set(healthy.json["jobs"]) == {
        *("flush", "rehydrate", "maintain", "index", "limit", "report", "observe_redis", "observe_postgres")
    }
    assert metrics.kind.startswith("text/plain")
    assert SECRET not in metrics.text
    assert found["banshee_store_up{redis}"] == found["banshee_store_up{postgres}"] == 1
    assert found["banshee_backlog_oldest_age_seconds"] >= 0
    assert found["banshee_flush_duration_seconds_count"] >= 1
    assert found["banshee_job_runs_total{flush}"] >= 1
    assert {"banshee_dead_letters", "banshee_backlog_records", "banshee_backlog_bytes"} <= found.keys()
    assert found["banshee_backlog_limit_records"] == 5_000_000
    assert 0 <= found["banshee_backlog_fullest_ratio"] < 1
    assert {"banshee_shards_held", "banshee_shards_waiting", "banshee_redis_memory_used_bytes"} <= found.keys()
    assert "process_cpu_seconds_total" in found or sys.platform != "linux"


def test_names_are_as_prometheus_wants_them(memory: MemoryPlugin, urls: tuple[str, str]) -> None:
    with started("daemon", "--listen", "127.0.0.1:0", urls=urls) as process:
        url = listening_at(process)
        until(lambda: ready(url))
        text = asked(f"{url}/metrics").text
    families = list(text_string_to_metric_families(text))
    ours = [family for family in families if family.name.startswith("banshee_")]
    assert {family.name.partition("_")[0] for family in families} <= {"banshee", "process"}
    assert all(re.fullmatch(r"[a-z]+(_[a-z]+)+", family.name) and family.documentation for family in ours)
    assert all(family.type in {"counter", "gauge", "summary"} for family in ours)
    labels = {label for family in ours for sample in family.samples for label in sample.labels}
    assert labels <= {"job", "store", "kind", "error"}


def test_other_paths_and_methods(urls: tuple[str, str]) -> None:
    with listening(("127.0.0.1", 0), Watch(SETTINGS)) as url:
        assert asked(f"{url}/").status == 404
        assert asked(f"{url}/healthz?full=1").status == 200
        assert asked(f"{url}/readyz", "HEAD") == (503, "application/json", "")
        assert asked(f"{url}/healthz", "POST").status == 501


def test_who_hangs_up_is_not_told_of(capfd: pytest.CaptureFixture[str]) -> None:
    with listening(("127.0.0.1", 0), Watch(SETTINGS)) as url:
        port = int(url.rpartition(":")[2])
        for said in (b"", b"GET /metrics", b"GET /metrics HTTP/1.1\r\n\r\n", b"\xff\xfe\r\n\r\n"):
            with socket.create_connection(("127.0.0.1", port)) as client:
                client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                client.sendall(said)
        assert asked(f"{url}/healthz").status == 200
    assert capfd.readouterr().err == ""


def test_a_defect_is_an_answer_too(monkeypatch: pytest.MonkeyPatch) -> None:
    watch = Watch(SETTINGS)
    monkeypatch.setattr(watch, "jobs", None)
    with listening(("127.0.0.1", 0), watch) as url:
        assert asked(f"{url}/healthz").status == 500
        assert asked(f"{url}/readyz").status == 503


def test_a_port_that_is_taken_is_told_before_anything_starts(urls: tuple[str, str]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        taken = f"127.0.0.1:{other.getsockname()[1]}"
        done = ran("daemon", "--listen", taken, urls=urls)
    assert done.returncode == 1
    assert f"Nothing can listen at {taken}" in done.stderr
    assert "--listen none" in done.stderr
    assert "started" not in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("text", ["9707", "127.0.0.1", "127.0.0.1:", ":9707", "127.0.0.1:70000", "localhost:http", ""])
def test_an_address_that_is_none_is_refused(text: str) -> None:
    done = ran_here("daemon", "--listen", text)
    assert done.exit_code == 2, done.stderr
    assert "host:port" in done.stderr


def test_addresses() -> None:
    assert address_of("none") is None
    assert address_of("0.0.0.0:1") == ("0.0.0.0", 1)
    assert address_of("[::1]:9707") == ("::1", 9707)


def test_both_stores_away(tmp_path: Any) -> None:
    nowhere = f"unix://{tmp_path}/r.sock", f"postgresql:///banshee?host={tmp_path}"
    with started("daemon", "--listen", "127.0.0.1:0", urls=nowhere) as process:
        url = listening_at(process)
        until(lambda: asked(f"{url}/readyz").text.count("Is it running") == 4)
        until(lambda: values(url).get("banshee_job_failures_total{HotStoreUnavailable,flush}"))
        answer, found = asked(f"{url}/readyz"), values(url)
        assert asked(f"{url}/healthz").status == 200
    assert answer.status == 503
    redis, postgres = answer.json["reasons"]
    assert redis.startswith("redis: Redis at")
    assert postgres.startswith("postgres: PostgreSQL at")
    assert found["banshee_store_up{redis}"] == found["banshee_store_up{postgres}"] == 0
    assert found["banshee_job_healthy{flush}"] == 1
    assert "banshee_backlog_records" not in found  # nobody has seen it: that is not none


def test_a_store_that_hangs_holds_no_answer_up(urls: tuple[str, str]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        hanging = f"redis://127.0.0.1:{silent.getsockname()[1]}"
        with started("daemon", "--listen", "127.0.0.1:0", urls=(hanging, urls[1])) as process:
            url = listening_at(process)
            until(lambda: values(url).get("banshee_store_up{postgres}") == 1)
            assert asked(f"{url}/readyz").json["reasons"] == ["redis: has not answered yet"]
            assert asked(f"{url}/healthz").status == 200


def test_postgresql_goes_and_comes_back(redis_url: str, database_url: str, urls: tuple[str, str], agent: UUID) -> None:
    with (
        own_redis(like=redis_url) as redis,
        own_database(database_url, SETTINGS) as database,
        MemoryPlugin(database, redis, settings=SETTINGS) as memory,
        started("daemon", "--listen", "127.0.0.1:0", urls=(redis, database)) as process,
    ):
        url = listening_at(process)
        until(lambda: ready(url))
        allow_connections(database_url, database, allowed=False)
        memory.conversations.save_messages(agent, [NewMessage(role="user", content="kept")] * 20)
        until(lambda: values(url)["banshee_backlog_records"] == 20)
        until(lambda: values(url)["banshee_store_up{postgres}"] == 0)
        answer = asked(f"{url}/readyz")
        assert answer.status == 503
        assert [reason.partition(":")[0] for reason in answer.json["reasons"]] == ["postgres"]
        assert values(url)["banshee_job_failures_in_a_row{flush}"] >= 1
        allow_connections(database_url, database, allowed=True)
        until(lambda: ready(url) and values(url)["banshee_backlog_records"] == 0)
        assert values(url)["banshee_flushed_records_total{messages}"] == 20
        assert values(url)["banshee_job_failures_in_a_row{flush}"] == 0


def allow_connections(server: str, database: str, *, allowed: bool) -> None:
    """PostgreSQL is away for all who use this database, or is there again."""
    name = psycopg.conninfo.conninfo_to_dict(database)["dbname"]
    with psycopg.connect(server, autocommit=True) as connection:
        words = sql.SQL("ALTER DATABASE {} ALLOW_CONNECTIONS {}")
        connection.execute(words.format(sql.Identifier(str(name)), sql.Literal(allowed)))
        if not allowed:
            throw_out(connection, name=str(name))


def test_a_schema_that_is_newer_is_not_ready(redis_url: str, database_url: str) -> None:
    with (
        own_redis(like=redis_url) as redis,
        own_database(database_url, SETTINGS) as database,
        started("daemon", "--listen", "127.0.0.1:0", urls=(redis, database)) as process,
    ):
        url = listening_at(process)
        until(lambda: ready(url))
        with psycopg.connect(database) as connection:
            connection.execute("UPDATE banshee_migrations SET name = '9999_of_tomorrow'")
        until(lambda: not ready(url))
        assert "lacks 0001" in asked(f"{url}/readyz").json["reasons"][0]


def test_without_the_metrics_client_the_rest_answers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "prometheus_client", None)
    with listening(("127.0.0.1", 0), Watch(SETTINGS)) as url:
        assert asked(f"{url}/healthz").status == 200
        answer = asked(f"{url}/metrics")
    assert answer.status == 501
    assert "banshee-memory[metrics]" in answer.text


def test_stopping_is_not_ready() -> None:
    watch = Watch(SETTINGS)
    for store in watch.stores.values():
        store.answered(0.001)
    assert watch.readiness().ok
    watch.stopping = True
    assert watch.readiness().reasons == ("the daemon is stopping",)


# --- when a job counts as broken, by a clock that the test sets ---


class Clock:
    now = 1_000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def job(clock: Clock) -> JobWatch:
    return JobWatch("flush", 1.0, 150.0, clock)


def test_a_job_that_does_not_end_is_broken(job: JobWatch, clock: Clock) -> None:
    job.begun()
    clock.now += 150
    assert job.broken() is None
    clock.now += 1
    assert job.broken() == "flush has been at work for 151 s without getting on"
    job.moved()
    assert job.broken() is None


def test_a_flush_that_has_much_to_do_may_take_its_time(clock: Clock) -> None:
    watch = Watch(SETTINGS, clock)
    watch.job("flush", 1.0).begun()
    for _ in range(10):
        clock.now += 100
        watch.carried(FlushReport(messages=1), held=1, waiting=1)
        assert watch.health().ok
    clock.now += 151
    assert not watch.health().ok


def test_a_job_that_is_not_begun_is_broken(job: JobWatch, clock: Clock) -> None:
    job.begun()
    job.ended()
    clock.now += 183
    assert job.broken() is None
    clock.now += 1
    assert job.broken() == "flush has not been begun for 184 s"


def test_a_job_that_fails_is_broken_after_a_while(job: JobWatch, clock: Clock) -> None:
    for _ in range(6):
        job.begun()
        job.failed(ConfigurationError("no right\nto do it"))
        assert job.broken() is None
        clock.now += 30
    job.begun()
    assert job.broken() == "flush has failed for 180 s: no right to do it"
    job.ended()
    assert job.broken() is None


def test_a_job_is_not_to_blame_for_a_store_that_is_away(job: JobWatch, clock: Clock) -> None:
    for _ in range(20):
        job.begun()
        job.failed(ColdStoreUnavailable("down"))
        clock.now += 30
    assert job.broken() is None
    assert (job.in_a_row, job.failures) == (20, {"ColdStoreUnavailable": 20})


def test_the_message_of_a_defect_is_not_told(job: JobWatch, clock: Clock) -> None:
    job.failed(RuntimeError(SECRET))
    assert job.told()["why"] == "RuntimeError"


def test_an_answer_that_is_old_is_none(clock: Clock) -> None:
    watch = Watch(SETTINGS, clock)
    for store in watch.stores.values():
        store.answered(0.001)
    clock.now += watch.store_patience
    assert watch.readiness().ok
    clock.now += 1
    assert watch.readiness().reasons == tuple(f"{name}: was last heard of 17 s ago" for name in watch.stores)
    assert watch.store_patience > 2 * OBSERVE_EVERY


def test_a_look_at_redis_that_takes_long_is_rare(clock: Clock) -> None:
    watch = Watch(SETTINGS, clock)
    backlog = Backlog(records=0, bytes=0, oldest_age=None)
    seen = HotSight(latency=0.0, backlog=backlog, dead_letters=0, used_memory=0, max_memory=0, evicted_keys=0)
    for seconds, wait in ((0.001, 0.02), (0.3, 6), (60, 10)):
        assert not watch.is_dear()
        watch.saw(seen, seconds)
        clock.now += wait - 0.01
        assert watch.is_dear()
        clock.now += 0.02
    assert watch.readiness().body["stores"]["redis"]["problem"] is None


def test_a_broken_job_is_told_over_http(clock: Clock) -> None:
    watch = Watch(SETTINGS, clock)
    watch.job("flush", 1.0).begun()
    clock.now += 1_000
    with listening(("127.0.0.1", 0), watch) as url:
        answer = asked(f"{url}/healthz")
        assert values(url)["banshee_job_healthy{flush}"] == 0
    assert answer.status == 503
    assert answer.json["reasons"] == ["flush has been at work for 1000 s without getting on"]
