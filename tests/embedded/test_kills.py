"""SIGKILL of anything leaves nothing running for good, nothing that blocks the next start, and no data lost."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import psycopg
import pytest
import redis

from banshee_memory.embedded import Servers, start
from banshee_memory.embedded.locks import FileLock
from tests.embedded.processes import (
    User,
    await_stop,
    kill,
    poll,
    postmasters,
    redis_servers,
    running,
    supervisors,
)


def count(servers: Servers) -> tuple[int, int]:
    """Add one to a counter in each server, and return both."""
    with redis.Redis.from_url(servers.redis_url) as client, psycopg.connect(servers.database_url) as connection:
        row = connection.execute("UPDATE kept SET value = value + 1 RETURNING value").fetchone()
        assert row is not None
        return int(client.incr("kept")), row[0]


def counts_on(servers: Servers, before: tuple[int, int]) -> bool:
    """Whether both counters go on from where they were, perhaps one more: nothing acknowledged is lost."""
    now = count(servers)
    return all(0 < new - old <= 2 for new, old in zip(now, before, strict=True))


def counts_again(servers: Servers, before: tuple[int, int]) -> Callable[[], bool]:
    def attempt() -> bool:
        try:
            now = count(servers)
        except (redis.ConnectionError, psycopg.OperationalError):
            return False
        return all(new > old for new, old in zip(now, before, strict=True))

    return attempt


def test_a_user(data_dir: Path) -> None:
    with User(data_dir) as user:
        user.urls()
        user.kill()
    await_stop(data_dir)


def test_the_supervisor_while_nobody_comes(data_dir: Path) -> None:
    with start(data_dir) as servers:
        before = count(servers)
        kill(supervisors(data_dir))
        poll(lambda: not running(data_dir))  # although its user is still there
    with start(data_dir) as again:
        assert counts_on(again, before)


def test_the_supervisor_and_a_start_at_once(data_dir: Path) -> None:
    for _ in range(3):
        with start(data_dir) as servers:
            before, were_running = count(servers), set(running(data_dir))
            kill(supervisors(data_dir))
            with start(data_dir) as again:
                assert not were_running & set(running(data_dir))
                assert len(redis_servers(data_dir)) == len(postmasters(data_dir)) == 1
                assert counts_on(again, before)


def test_the_supervisor_as_it_starts(new_dir: Path) -> None:
    with User(new_dir) as user:
        poll(lambda: running(new_dir, "postgres.new-"))
        kill(supervisors(new_dir))
        user.urls()  # it starts another, which begins initdb anew
        assert [entry.name for entry in new_dir.glob("postgres*")] == ["postgres"]


@pytest.mark.parametrize("server", [redis_servers, postmasters])
def test_a_server_is_started_again(data_dir: Path, server: Callable[[Path], list[int]]) -> None:
    with start(data_dir) as servers:
        before, was_running = count(servers), server(data_dir)
        kill(was_running)
        poll(counts_again(servers, before))  # under the same URL
        poll(lambda: len(server(data_dir)) == 1)
        assert server(data_dir) != was_running


def test_both_servers_and_the_supervisor(data_dir: Path) -> None:
    with start(data_dir) as servers:
        before = count(servers)
        kill(supervisors(data_dir))
        for found in (redis_servers(data_dir), postmasters(data_dir)):
            for pid in found:
                with suppress(ProcessLookupError):  # it was quick to follow its supervisor
                    os.kill(pid, signal.SIGKILL)
    with start(data_dir) as again:
        assert counts_on(again, before)


def test_a_server_that_takes_long_to_end(data_dir: Path) -> None:
    with FileLock(data_dir / "locks" / "redis") as held:  # as such a server does
        assert held.try_acquire()
        with User(data_dir) as waiting:
            poll(lambda: supervisors(data_dir))
            time.sleep(0.5)
            assert redis_servers(data_dir) == []  # nobody starts one beside it
            held.close()
            waiting.urls()


def test_a_server_that_cannot_be_started_again_stops_all(data_dir: Path) -> None:
    with start(data_dir) as servers:
        before = count(servers)
        (data_dir / "redis").rename(data_dir / "away")
        kill(redis_servers(data_dir))
        await_stop(data_dir)
        assert "redis in" in (data_dir / "logs" / "supervisor.log").read_text()
    (data_dir / "away").rename(data_dir / "redis")
    with start(data_dir) as again:
        assert counts_on(again, before)


def test_a_supervisor_that_is_asked_to_end(data_dir: Path) -> None:
    with start(data_dir):
        (pid,) = supervisors(data_dir)
        os.kill(pid, signal.SIGTERM)
        await_stop(data_dir)


def test_sockets_that_went_away(data_dir: Path) -> None:
    with start(data_dir) as first, start(data_dir) as second:
        before = count(first)
        folder = (data_dir / "sockets").readlink()
        shutil.rmtree(folder)
        second.close()  # which wakes the supervisor
        await_stop(data_dir)
    with start(data_dir) as again:
        assert counts_on(again, before)


def test_a_note_of_a_dead_postmaster_whose_number_is_taken(data_dir: Path) -> None:
    # As after a restart of a container, in which the same few numbers are given out again.
    (data_dir / "postgres" / "postmaster.pid").write_text(f"{os.getpid()}\n{data_dir / 'postgres'}\n1\n5432\n\n\n")
    with start(data_dir) as servers:
        assert count(servers)


def test_stale_sockets(data_dir: Path, tmp_path: Path) -> None:
    stale = tmp_path / "banshee-stale"
    stale.mkdir(mode=0o700)
    with pytest.MonkeyPatch.context() as patch, socket.socket(socket.AF_UNIX) as dead:
        patch.chdir(stale)
        dead.bind("control.sock")
    (data_dir / "sockets").symlink_to(stale)
    with start(data_dir) as servers:
        assert count(servers)
    assert not stale.exists()
