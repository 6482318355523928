"""A held connection: whatever comes between a command and its reply, no reply reaches another caller."""

from __future__ import annotations

import math
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import FrameType
from typing import Any

import pytest
import redis

from banshee_memory.hot import connection as module
from banshee_memory.hot.connection import Connection, Pool
from banshee_memory.hot.faults import LostError, ServerError
from banshee_memory.hot.opening import open_socket
from tests.hot.proxy import ThreadedProxy, chopped, threaded

CHOSEN = {"protocol": 2}
SOON = 0.2
"""Seconds after which a reply that is held back counts as lost."""


@pytest.fixture
def proxy(own_url: str, tmp_path: Path) -> Iterator[ThreadedProxy]:
    with threaded(own_url, tmp_path) as running:
        yield running


def pool_on(url: str, timeout: float = 10.0) -> Pool:
    return Pool(lambda: Connection(open_socket(url, CHOSEN), timeout), lambda _: True)


@pytest.fixture
def pool(proxy: ThreadedProxy) -> Iterator[Pool]:
    made = pool_on(proxy.proxy.url)
    yield made
    made.close()


def echo(pool: Pool, word: str) -> bool:
    return bool(pool.ask(("ECHO", word)) == word.encode())


def test_replies_of_every_kind(pool: Pool) -> None:
    assert pool.ask(("SET", "kinds", "x" * 100_000)) == b"OK"
    assert pool.ask(("GET", "kinds")) == b"x" * 100_000
    assert pool.ask(("GET", "none")) is None
    assert pool.ask(("DEL", "kinds")) == 1
    assert pool.ask(("COMMAND", "INFO", "GET"))[0][0] == b"get"
    error = pool.ask(("NONSENSE",))
    assert isinstance(error, ServerError)
    assert "unknown command" in str(error)


def test_an_error_in_a_pipeline_stands_in_its_place(pool: Pool) -> None:
    replies = pool.ask_all([("ECHO", "a"), ("NONSENSE",), ("ECHO", "b")])
    assert [replies[0], replies[2]] == [b"a", b"b"]
    assert isinstance(replies[1], ServerError)
    assert echo(pool, "c")


def test_replies_in_drops(pool: Pool, proxy: ThreadedProxy) -> None:
    proxy.proxy.mangle = chopped(1, most=1)
    assert pool.ask_all([("ECHO", str(n)) for n in range(50)]) == [str(n).encode() for n in range(50)]


def test_a_reply_that_comes_too_late_is_nobody_s(proxy: ThreadedProxy) -> None:
    pool = pool_on(proxy.proxy.url, SOON)
    assert echo(pool, "before")
    proxy.do(proxy.proxy.held.clear)
    with pytest.raises(LostError, match="did not answer in time"):
        pool.ask(("ECHO", "late"))
    proxy.do(proxy.proxy.held.set)
    assert echo(pool, "after")
    pool.close()


def test_a_pipeline_half_of_which_came_is_nobody_s(proxy: ThreadedProxy) -> None:
    pool = pool_on(proxy.proxy.url, SOON)
    assert echo(pool, "before")
    proxy.proxy.mangle = lambda replies: [replies[:15]] if b"one" in replies else [replies]
    with pytest.raises(LostError):
        pool.ask_all([("ECHO", "one"), ("ECHO", "two"), ("ECHO", "three")])
    assert echo(pool, "after")
    pool.close()


def test_a_server_that_drips_for_ever_is_given_up(proxy: ThreadedProxy) -> None:
    pool = pool_on(proxy.proxy.url, SOON)
    pool.ask(("SET", "long", "x" * 5_000_000))
    proxy.proxy.mangle = chopped(1, most=1)
    with pytest.raises(LostError, match="in time"):
        pool.ask(("GET", "long"))
    pool.close()


class Interrupted(Exception):
    pass


def test_an_interrupted_call_leaves_no_reply_behind(pool: Pool, proxy: ThreadedProxy) -> None:
    assert echo(pool, "before")
    proxy.do(proxy.proxy.held.clear)
    proxy.proxy.asked.clear()

    def interrupt() -> None:
        assert proxy.proxy.asked.wait(10)
        signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGUSR1)

    def handler(number: int, frame: FrameType | None) -> None:
        raise Interrupted

    old = signal.signal(signal.SIGUSR1, handler)
    helper = threading.Thread(target=interrupt)
    helper.start()
    try:
        with pytest.raises(Interrupted):
            pool.ask(("ECHO", "interrupted"))
    finally:
        helper.join()
        signal.signal(signal.SIGUSR1, old)
    proxy.do(proxy.proxy.held.set)
    assert echo(pool, "after")


@pytest.mark.parametrize("said", [b"$5\r\nother\r\n", b"*1\r\n", b"\0\1\2garbage\r\n", b"+OK\r\n:1\r\n"])
def test_what_nobody_asked_for_ends_the_connection(said: bytes, pool: Pool, proxy: ThreadedProxy) -> None:
    proxy.proxy.mangle = lambda replies: [replies + said] if b"mine" in replies else [replies]
    with pytest.raises(LostError):
        echo(pool, "mine")
    assert echo(pool, "after")


@pytest.mark.parametrize("said", [b"$5\r\nother\r\n", b"garbage\r\n"])
def test_what_came_between_two_calls_is_not_the_reply_to_the_second(
    said: bytes, pool: Pool, proxy: ThreadedProxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert echo(pool, "before")
    (held,) = pool._free
    proxy.do(lambda: proxy.proxy.say(said))
    until(lambda: not held.is_usable())
    monkeypatch.setattr(module, "_IDLE", 0.0)
    assert echo(pool, "after")


def test_a_server_that_hung_up_meanwhile_is_called_again(
    pool: Pool, proxy: ThreadedProxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert echo(pool, "before")
    (held,) = pool._free
    proxy.do(proxy.proxy.cut)
    until(lambda: not held.is_usable())
    monkeypatch.setattr(module, "_IDLE", 0.0)
    assert echo(pool, "after")


@pytest.mark.parametrize("threads", [1, 3])
def test_a_command_that_could_not_be_sent_goes_to_another_connection(
    threads: int, pool: Pool, proxy: ThreadedProxy
) -> None:
    taken = [pool._taken(pool._free) for _ in range(threads)]
    assert [connection.ask(("PING",)) for connection in taken] == [b"PONG"] * threads
    pool._free += taken
    proxy.do(proxy.proxy.cut)
    until(lambda: not any(connection.is_usable() for connection in taken))
    for connection in taken:
        connection.used = math.inf  # as if it had been used just now
    assert echo(pool, "after")
    assert pool.ask_all([("ECHO", "a"), ("ECHO", "b")]) == [b"a", b"b"]
    assert len(pool._free) == 1


def until(condition: Callable[[], bool]) -> None:
    stop = threading.Event()
    for _ in range(2_000):
        if condition():
            return
        stop.wait(0.005)
    raise AssertionError("never came true")


def test_a_server_that_hangs_up_within_a_call(pool: Pool, proxy: ThreadedProxy) -> None:
    assert echo(pool, "before")
    proxy.proxy.mangle = lambda replies: proxy.proxy.cut() if b"mine" in replies else [replies]
    with pytest.raises(LostError):
        echo(pool, "mine")
    assert echo(pool, "after")


def test_threads_get_their_own_replies_and_share_connections(own_url: str) -> None:
    pool = pool_on(own_url)

    def work(thread: int) -> bool:
        return all(echo(pool, f"{thread}.{n}") for n in range(300))

    with ThreadPoolExecutor(8) as threads:
        assert all(threads.map(work, range(16)))
    assert 1 <= len(pool._free) <= 8
    pool.close()


def test_a_closed_pool_leaves_nothing_open(own_url: str) -> None:
    with redis.Redis.from_url(own_url) as client:
        before = len(client.client_list())
        pool = pool_on(own_url)
        assert echo(pool, "a")
        assert len(client.client_list()) == before + 1
        pool.close()
        pool.close()
        until(lambda: len(client.client_list()) == before)
        assert echo(pool, "again")
        pool.close()


def test_a_connection_in_use_goes_when_its_call_is_over(own_url: str) -> None:
    with redis.Redis.from_url(own_url) as client:
        before = len(client.client_list())
        pool = pool_on(own_url)
        assert echo(pool, "a")
        free = pool._free
        taken = pool._taken(free)
        pool.close()
        assert taken.ask(("PING",)) == b"PONG"
        free.append(taken)
        del taken, free
        until(lambda: len(client.client_list()) == before)


FORKING = """
import os, sys
from banshee_memory.hot.connection import Connection, Pool
from banshee_memory.hot.opening import open_socket

pool = Pool(lambda: Connection(open_socket(sys.argv[1], {}), 10), lambda _: True)
parent = pool.ask(("CLIENT", "ID"))
connection = pool._taken(pool._free)  # as if a signal handler forked within a call
pool._free.append(connection)
alone = Connection(open_socket(sys.argv[1], {}), 10)
held = [connection._socket, alone._socket]
child = os.fork()
if child == 0:
    assert [one.fileno() for one in held] == [-1, -1], "the child keeps the parent's sockets"
    assert not pool._free
    assert pool.ask(("CLIENT", "ID")) != parent, "the child uses the parent's connection"
    assert pool.ask(("ECHO", "child")) == b"child"
    os._exit(0)
_, status = os.waitpid(child, 0)
assert status == 0
assert pool.ask(("CLIENT", "ID")) == parent, "the parent lost its connection"
"""


def test_a_forked_child_leaves_its_parent_s_connections_alone(own_url: str) -> None:
    done = subprocess.run([sys.executable, "-c", FORKING, own_url], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_a_timeout_of_the_kernel_is_used_where_there_is_no_tls(own_url: str) -> None:
    opened = open_socket(own_url, CHOSEN)
    made = Connection(opened, 1.5)
    assert opened.gettimeout() is None
    seconds = opened.getsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, 16)
    assert int.from_bytes(seconds[:8], sys.byteorder) == 1
    made.close()


def test_closed_by_whom_it_may_concern(own_url: str) -> None:
    made = Connection(open_socket(own_url, CHOSEN), 10)
    made.close()
    made.close()
    assert not made.is_usable()
    replies: list[Any] = []
    with pytest.raises(LostError):
        replies.append(made.ask(("PING",)))
    assert not replies
