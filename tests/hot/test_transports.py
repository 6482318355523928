"""Over a Unix socket, TCP and TLS, as a user with a password and with no more rights than the runbook gives it."""

from __future__ import annotations

import asyncio
import re
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import quote

import pytest
import redis

from banshee_memory.emotions import Emotion, EmotionalState
from banshee_memory.errors import BansheeError, ConfigurationError, HotStoreUnavailable
from banshee_memory.hot import calls
from banshee_memory.hot.aio import AsyncHotStore
from banshee_memory.hot.aio_tracking import AsyncCachedReads
from banshee_memory.hot.cache import Cache
from banshee_memory.hot.calls import Call
from banshee_memory.hot.client import HotStore
from banshee_memory.hot.keys import AgentKeys
from banshee_memory.hot.tracking import CachedReads
from banshee_memory.settings import Settings
from tests.own_servers import make_logs
from tests.redis_servers import free_port
from tests.servers import program_of

ROOT = Path(__file__).parents[2]
TRANSPORTS = ("unix", "tcp", "tls")
BIG = "x" * 400_000


class Server(NamedTuple):
    """A server on all of them (`tls` None: it has no TLS), and how its owner reaches it."""

    folder: Path
    tcp: int
    tls: int | None

    @property
    def owner(self) -> redis.Redis:
        return redis.Redis(unix_socket_path=str(self.folder / "s"))

    def url(self, transport: str, user: str = "banshee:secret", *, trusted: bool = True) -> str:
        if transport == "unix":
            return f"unix://{user}@{quote(str(self.folder / 's'))}"
        if transport == "tcp":
            return f"redis://{user}@127.0.0.1:{self.tcp}"
        if self.tls is None:
            pytest.skip("this server has no TLS, or there is no openssl to make a certificate with")
        query = f"?ssl_ca_certs={quote(str(self.folder / 'certificate.pem'))}" if trusted else ""
        return f"rediss://{user}@127.0.0.1:{self.tls}{query}"


def certified(folder: Path) -> bool:
    """Makes a key and a certificate for 127.0.0.1; False where nothing here can."""
    openssl = shutil.which("openssl")
    if openssl is None:
        return False
    words = (
        "req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -keyout key.pem -out certificate.pem -days 2"
    )
    names = ["-subj", "/CN=localhost", "-addext", "subjectAltName=IP:127.0.0.1"]
    done = subprocess.run([openssl, *words.split(), *names], cwd=folder, capture_output=True, check=False)
    return done.returncode == 0


@pytest.fixture(scope="module")
def server(redis_url: str) -> Iterator[Server]:
    with tempfile.TemporaryDirectory(prefix="redis-") as name:
        folder = Path(name)
        tcp, tls = free_port(), free_port()
        plain = [*f"--port {tcp} --bind 127.0.0.1 --unixsocket s --logfile log --save".split(), ""]
        secure = f"--tls-port {tls} --tls-cert-file certificate.pem --tls-key-file key.pem".split()
        secure += ["--tls-ca-cert-file", "certificate.pem", "--tls-auth-clients", "no"]
        with_tls = certified(folder)
        process = started(redis_url, folder, [*plain, *secure]) if with_tls else None
        if process is None:
            process, with_tls = started(redis_url, folder, plain), False
        assert process is not None
        try:
            made = Server(folder, tcp, tls if with_tls else None)
            with made.owner as owner:
                make_logs(owner)
                owner.response_callbacks.pop("COMMAND", None)  # the driver's reading knows one of its forms only
                known = bool(owner.execute_command("COMMAND", "LIST", "FILTERBY", "PATTERN", "waitaof"))
                owner.execute_command(*(word for word in rights().split() if known or word != "+waitaof"))
            yield made
        finally:
            process.kill()
            process.wait()


def started(like: str, folder: Path, words: list[str]) -> subprocess.Popen[bytes] | None:
    """None: it does not take these words."""
    process = subprocess.Popen(
        [program_of(like), *words], cwd=folder, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL
    )
    deadline = time.monotonic() + 30
    with redis.Redis(unix_socket_path=str(folder / "s")) as client:
        while process.poll() is None and time.monotonic() < deadline:
            try:
                client.ping()
                return process
            except redis.ConnectionError:
                time.sleep(0.005)
    process.kill()
    process.wait()
    return None


def rights() -> str:
    """What the runbook says an application's user needs."""
    found = re.search(r"^ACL SETUSER banshee .*$", (ROOT / "docs" / "runbook.md").read_text(), re.MULTILINE)
    assert found
    return found[0]


class Twin:
    """Either client of the hot tier, called alike."""

    def __init__(self, url: str, *, is_async: bool) -> None:
        self._runner = asyncio.Runner() if is_async else None
        self.cache = Cache(100, 1_000_000)
        settings = Settings(connect_timeout=5)
        self._hot: Any = AsyncHotStore(url, settings) if is_async else HotStore(url, settings)
        self._hot.cache = self.cache
        reads: Any = AsyncCachedReads if is_async else CachedReads
        self._reads = reads(self._hot, self.cache, 5.0)

    def _do(self, done: Any) -> Any:
        return self._runner.run(done) if self._runner is not None else done

    def run(self, call: Call[Any]) -> Any:
        return self._do(self._hot.run(call))

    def run_all(self, batch: list[Call[Any]]) -> Any:
        return self._do(self._hot.run_all(batch))

    def read(self, call: Call[Any]) -> Any:
        """Kept, if it can be."""
        return self._do(self._reads.run(call))

    def turn(self) -> None:
        if self._runner is not None:
            self._runner.run(asyncio.sleep(0.001))

    def close(self) -> None:
        if self._runner is not None:
            self._runner.run(self._reads.aclose())
            self._runner.run(self._hot.aclose())
            for _ in range(20):  # over TLS a connection that was refused says goodbye first
                self.turn()
            self._runner.close()
        else:
            self._reads.close()
            self._hot.close()


@pytest.fixture(params=["sync", "async"])
def is_async(request: pytest.FixtureRequest) -> bool:
    return bool(request.param == "async")


@pytest.fixture(params=TRANSPORTS)
def transport(request: pytest.FixtureRequest) -> str:
    chosen: str = request.param
    return chosen


@pytest.fixture
def twin(server: Server, transport: str, is_async: bool) -> Iterator[Twin]:
    made = Twin(server.url(transport), is_async=is_async)
    yield made
    made.close()


def test_calls_large_and_small_and_many(twin: Twin, keys: AgentKeys) -> None:
    twin.run(calls.save_state(keys, EmotionalState({Emotion.JOY: 0.5})))
    assert twin.run(calls.load_state(keys)).emotions[Emotion.JOY] == pytest.approx(0.5, abs=0.1)
    assert twin.run(Call(("ECHO", BIG), bytes)) == BIG.encode()
    found = twin.run_all([Call(("ECHO", f"{number}" * (number * 50 + 1)), bytes) for number in range(200)])
    assert found == [(f"{number}" * (number * 50 + 1)).encode() for number in range(200)]


def test_a_connection_that_was_closed_while_it_rested(twin: Twin, server: Server) -> None:
    assert twin.run(Call(("ECHO", "before"), bytes)) == b"before"
    with server.owner as owner:
        owner.client_kill_filter(_type="normal", skipme=True)
    deadline = time.monotonic() + 10
    while True:
        try:
            assert twin.run(Call(("ECHO", "after"), bytes)) == b"after"
            return
        except HotStoreUnavailable:  # tasks may have asked before they could know
            assert time.monotonic() < deadline
            twin.turn()


def test_reads_are_kept_and_changes_heard_of(twin: Twin, server: Server, keys: AgentKeys) -> None:
    other = HotStore(server.url("unix"), Settings())
    other.run(calls.save_state(keys, EmotionalState({Emotion.JOY: 0.5})))
    for turn in range(20):
        twin.read(calls.load_state(keys))
        assert len(twin.cache) == 1
        other.run(calls.update_emotions(keys, {Emotion.FEAR: (turn + 1) / 30}, "set"))
        deadline = time.monotonic() + 10
        while len(twin.cache):
            assert time.monotonic() < deadline
            twin.turn()
        felt = twin.read(calls.load_state(keys)).emotions[Emotion.FEAR]
        assert felt == pytest.approx((turn + 1) / 30, abs=0.1)
    other.close()


def failure(url: str, *, is_async: bool) -> BansheeError:
    twin = Twin(url, is_async=is_async)
    with pytest.raises(BansheeError) as caught:
        twin.run(calls.version())
    twin.close()
    return caught.value


def test_a_wrong_password_is_told(server: Server, transport: str, is_async: bool) -> None:
    assert isinstance(failure(server.url(transport, "banshee:wrong"), is_async=is_async), ConfigurationError)


def test_a_certificate_that_nobody_vouches_for_is_not_taken(server: Server, is_async: bool) -> None:
    wrong = failure(server.url("tls", trusted=False), is_async=is_async)
    assert isinstance(wrong, HotStoreUnavailable)
    assert "certificate" in str(wrong).lower()


def test_what_is_said_of_it_names_no_password(server: Server, transport: str, is_async: bool) -> None:
    assert "wrong" not in str(failure(server.url(transport, "banshee:wrong"), is_async=is_async))
