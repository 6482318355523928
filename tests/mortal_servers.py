"""Servers that can be killed, limited and started again on what they left."""

from __future__ import annotations

import os
import resource
import signal
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any
from urllib.parse import quote

import redis

from banshee_memory.cold.migrate import migrate
from banshee_memory.embedded.binaries import Binaries, bundled
from banshee_memory.embedded.folders import DataFolder
from banshee_memory.embedded.postgres import Postgres
from banshee_memory.settings import Settings
from tests.matrix import second_pair
from tests.own_servers import make_logs, wait_for
from tests.servers import REDIS_VARIABLE


def programs() -> Binaries:
    """The second pair where the tests are given other servers than the bundled ones."""
    return (second_pair() if os.environ.get(REDIS_VARIABLE) else None) or bundled()


class MortalRedis:
    """A Redis whose append-only file is synced every second."""

    def __init__(self, home: Path) -> None:
        self._socket = home / "s"
        self._home = home
        self._process: subprocess.Popen[bytes] | None = None
        self.url = f"unix://{quote(str(self._socket))}"

    def start(self) -> None:
        """Starts it, and waits until it has loaded what it has."""
        words = f"--port 0 --dir {self._home} --unixsocket {self._socket} --logfile log --save".split()
        words += ["", *["--appendonly", "yes", "--appendfsync", "everysec", "--maxmemory-policy", "volatile-lru"]]
        # A file that grows too large is an error to it, as a full disk is, and not a signal that ends it.
        self._process = subprocess.Popen([programs().redis_server, *words], restore_signals=False)
        wait_for(self.url)
        with self.client() as client:
            if not client.exists("banshee:{0}:log"):
                make_logs(client)

    def client(self) -> Any:
        """A raw client."""
        return redis.Redis.from_url(self.url)

    def limit_growth(self, by: int | None) -> None:
        """The append-only file may grow by that many bytes; None: by any."""
        assert self._process is not None
        size = max(path.stat().st_size for path in self._home.glob("appendonlydir/*.aof"))
        _limit_files(self._process.pid, None if by is None else size + by)

    def kill(self) -> None:
        """SIGKILL."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None


class MortalPostgres:
    """A PostgreSQL with a migrated database."""

    def __init__(self, home: Path, settings: Settings) -> None:
        self._data = DataFolder(home)
        self._data.create()
        self._sockets = self._data.new_sockets()
        self._server = Postgres(self._data, programs().postgres_bin)
        self._settings = settings
        self.url = self._server.url(self._sockets)

    def start(self) -> None:
        """Starts it, and waits until it takes clients."""
        self._server.acquire()
        self._server.prepare()
        self._server.start(self._sockets)
        self._server.wait(self._sockets)
        migrate(self.url, self._settings)

    def limit_files(self, size: int | None) -> None:
        """No file may grow beyond that many bytes; None: any size. For who connects from now on, too."""
        for pid in (self._pid(), *_children(self._pid())):
            _limit_files(pid, size)

    def kill(self) -> None:
        """SIGKILL to the postmaster; its processes notice and end."""
        with suppress(FileNotFoundError, ProcessLookupError):
            os.kill(self._pid(), signal.SIGKILL)
        self._server.finish()

    def _pid(self) -> int:
        return int((self._data.postgres / "postmaster.pid").read_text().split()[0])


def _children(pid: int) -> list[int]:
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def _limit_files(pid: int, size: int | None) -> None:
    limit = resource.RLIM_INFINITY if size is None else size
    with suppress(ProcessLookupError):
        resource.prlimit(pid, resource.RLIMIT_FSIZE, (limit, resource.RLIM_INFINITY))


@contextmanager
def mortal_redis() -> Iterator[MortalRedis]:
    """One that runs."""
    with tempfile.TemporaryDirectory(prefix="redis-") as home:
        server = MortalRedis(Path(home))
        try:
            server.start()
            yield server
        finally:
            server.kill()


@contextmanager
def mortal_postgres(settings: Settings) -> Iterator[MortalPostgres]:
    """One that runs."""
    with tempfile.TemporaryDirectory(prefix="postgres-") as home:
        server = MortalPostgres(Path(home), settings)
        try:
            server.start()
            yield server
        finally:
            server.kill()
