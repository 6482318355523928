"""Users come, share and leave; the last one's leaving stops the servers, and the data stays."""

from __future__ import annotations

import os
import signal
import time
from contextlib import ExitStack
from pathlib import Path

import psycopg
import pytest
import redis

from banshee_memory.embedded import Servers, start
from tests.embedded.processes import (
    User,
    await_stop,
    poll,
    postmasters,
    redis_servers,
    running,
    stop,
    supervisors,
)


def works(servers: Servers) -> bool:
    """Whether both servers answer, and have what the data directory was made with."""
    with redis.Redis.from_url(servers.redis_url) as client, psycopg.connect(servers.database_url) as connection:
        return connection.execute("SELECT value FROM kept").fetchone() is not None and bool(client.get("kept"))


def one_of_each(data_dir: Path) -> bool:
    return [len(found(data_dir)) for found in (supervisors, redis_servers, postmasters)] == [1, 1, 1]


@pytest.fixture
def servers(data_dir: Path) -> Servers:
    return start(data_dir)


def test_the_servers_are_durable_and_private(data_dir: Path) -> None:
    with start(data_dir) as servers:
        with redis.Redis.from_url(servers.redis_url) as client:
            wanted = {"appendonly": "yes", "appendfsync": "everysec", "save": "", "maxmemory-policy": "volatile-lru"}
            assert {name: client.config_get(name)[name] for name in wanted} == wanted
            assert client.config_get("port") == {"port": "0"}
        with psycopg.connect(servers.database_url) as connection:
            settings = ("server_encoding", "fsync", "synchronous_commit", "listen_addresses", "timezone")
            shown = [connection.execute(f"SHOW {name}").fetchone() for name in settings]
            assert shown == [("UTF8",), ("on",), ("on",), ("",), ("UTC",)]
            assert connection.info.dbname == "banshee"


def test_only_the_user_can_reach_the_sockets(data_dir: Path) -> None:
    with start(data_dir):
        folder = (data_dir / "sockets").readlink()
        assert folder.stat().st_mode & 0o777 == 0o700
        names = sorted(entry.name for entry in folder.iterdir())
        assert names == [".s.PGSQL.5432", ".s.PGSQL.5432.lock", "control.sock", "redis.sock"]
    stop(data_dir)
    assert not folder.exists()


def test_nothing_is_written_but_in_the_data_directory_and_the_sockets(data_dir: Path) -> None:
    before = {entry.name for entry in data_dir.parent.iterdir()}
    with start(data_dir):
        assert {entry.name for entry in data_dir.parent.iterdir()} == before
        made = {"locks", "logs", "postgres", "redis", "sockets"}
        assert {entry.name for entry in data_dir.iterdir()} == made


def test_close_is_idempotent(servers: Servers) -> None:
    servers.close()
    servers.close()


def test_two_processes_share_one_pair(data_dir: Path) -> None:
    with User(data_dir) as first, User(data_dir) as second:
        assert first.urls() == second.urls()
        poll(lambda: one_of_each(data_dir))
        first.leave()
        time.sleep(0.8)  # longer than the supervisor lingers
        assert one_of_each(data_dir)
        with start(data_dir) as third:
            assert works(third)


def test_the_last_one_out_stops_all(data_dir: Path) -> None:
    with start(data_dir):
        assert one_of_each(data_dir)
    began = time.monotonic()
    await_stop(data_dir)
    assert time.monotonic() - began < 5
    assert (data_dir / "logs" / "postgres.log").read_text().rstrip().endswith("database system is shut down")


def test_a_second_start_finds_the_data(data_dir: Path) -> None:
    for number in range(2):
        with start(data_dir) as servers, redis.Redis.from_url(servers.redis_url) as client:
            assert works(servers)
            assert client.incr("starts") == number + 1
        stop(data_dir)


def test_four_that_start_at_once_get_one_pair(new_dir: Path) -> None:
    folder = new_dir / "made" / "on the way"
    with ExitStack() as stack:
        users = [stack.enter_context(User(folder)) for _ in range(4)]
        assert len({tuple(user.urls()) for user in users}) == 1
        poll(lambda: one_of_each(folder))  # the supervisors that lost see their users served, and end


def test_whoever_comes_as_the_last_one_leaves_is_served(data_dir: Path) -> None:
    for delay in (0.0, 0.5, 0.51):
        start(data_dir).close()
        time.sleep(delay)
        with start(data_dir) as servers, redis.Redis.from_url(servers.redis_url) as client:
            assert client.ping()


def test_an_interrupt_in_the_users_terminal_is_not_for_the_servers(data_dir: Path) -> None:
    with User(data_dir) as interrupted, start(data_dir) as servers:
        interrupted.urls()
        os.killpg(interrupted.process.pid, signal.SIGINT)
        interrupted.process.communicate(timeout=10)
        assert works(servers)


def test_a_forked_child_does_not_keep_the_servers(data_dir: Path) -> None:
    servers = start(data_dir)
    hold, release = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(release)
        os.read(hold, 1)
        os._exit(0)
    try:
        servers.close()
        await_stop(data_dir)
    finally:
        os.close(release)
        os.close(hold)
        os.waitpid(child, 0)


def test_a_users_environment_does_not_lead_elsewhere(data_dir: Path) -> None:
    environment = {"PGPORT": "1", "PGHOST": "nowhere.invalid", "PGDATABASE": "other", "PGUSER": "other"}
    with pytest.MonkeyPatch.context() as patch:
        for name, value in environment.items():
            patch.setenv(name, value)
        with start(data_dir) as servers:
            assert works(servers)


def test_odd_temporary_directories(data_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    odd = Path("/tmp") / f'banshee test "{os.getpid()}" %41'
    odd.mkdir()
    try:
        monkeypatch.setenv("TMPDIR", str(odd))
        monkeypatch.delenv("XDG_RUNTIME_DIR", raising=False)
        with start(data_dir) as servers:
            assert (data_dir / "sockets").readlink().parent == odd
            assert works(servers)
        stop(data_dir)
        long = tmp_path / ("a long name " * 9)
        long.mkdir()
        monkeypatch.setenv("TMPDIR", str(long))
        with start(data_dir) as servers:
            assert (data_dir / "sockets").readlink().parent == Path("/tmp")
    finally:
        odd.rmdir()


def test_the_supervisor_belongs_to_nobody(data_dir: Path) -> None:
    with start(data_dir):
        (pid,) = supervisors(data_dir)
        assert os.getsid(pid) not in {os.getsid(0), os.getpid()}
        with pytest.raises(ChildProcessError):
            os.waitpid(pid, os.WNOHANG)
        assert len(running(data_dir)) == 3
