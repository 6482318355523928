"""Servers to be killed: a Redis with an append-only file and one to replace it, a PostgreSQL that comes back.

Their folders are in memory where the machine has such a place: what is tested is the death of processes, which no write
that was made outlives differently there.
"""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any
from urllib.parse import quote

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from banshee_memory.cold.migrate import migrate
from banshee_memory.embedded import Binaries
from banshee_memory.embedded import postgres as embedded
from banshee_memory.embedded.binaries import bundled
from banshee_memory.embedded.folders import DataFolder
from banshee_memory.settings import Settings
from tests.matrix import second_pair
from tests.servers import REDIS_VARIABLE

_MEMORY = Path("/dev/shm")
_LONGEST = 30.0


def programs() -> Binaries:
    """The second pair where the tests are given other servers than the bundled ones."""
    return (second_pair() if os.environ.get(REDIS_VARIABLE) else None) or bundled()


def folder() -> Any:
    """A folder that goes with the block."""
    return tempfile.TemporaryDirectory(prefix="simulator-", dir=_MEMORY if _MEMORY.is_dir() else None)


def until(true: Callable[[], object], *errors: type[Exception]) -> None:
    """Waits for a server to do what it was told."""
    deadline = time.monotonic() + _LONGEST
    while True:
        with suppress(*errors):
            if true():
                return
        assert time.monotonic() < deadline, "a server did not do as it was told"
        time.sleep(0.002)


class RedisServer:
    """One Redis: every write is in its append-only file before it is acknowledged."""

    def __init__(self, program: Path, home: Path) -> None:
        self.socket = home / "s"
        self._home = home
        self._program = program
        with socket.socket() as found:
            found.bind(("127.0.0.1", 0))
            self.port = int(found.getsockname()[1])
        self.client: Any = redis.Redis(unix_socket_path=str(self.socket), retry=Retry(NoBackoff(), 0))
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def files(self) -> Path:
        """Its append-only file, which is a folder of several."""
        return self._home / "appendonlydir"

    def start(self) -> None:
        """Starts it on what it has, and waits until it answers."""
        self._home.mkdir(exist_ok=True)
        words = f"--port {self.port} --bind 127.0.0.1 --dir {self._home} --unixsocket {self.socket} --logfile log"
        words += " --save '' --appendonly yes --appendfsync always --auto-aof-rewrite-percentage 0"
        words += " --repl-diskless-sync yes --repl-diskless-sync-delay 0 --maxmemory-policy volatile-lru"
        arguments = ["" if word == "''" else word for word in words.split()]
        self._process = subprocess.Popen([self._program, *arguments], stdin=subprocess.DEVNULL)
        until(self.client.ping, redis.ConnectionError, redis.exceptions.BusyLoadingError)

    def kill(self) -> None:
        """SIGKILL."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
        self._process = None
        self.client.connection_pool.disconnect()


class Redises:
    """A Redis under one URL, and another that follows it and can take its place."""

    def __init__(self, program: Path, home: Path) -> None:
        self._program = program
        self._home = home
        self._link = home / "redis"
        self._count = 0
        self.primary = self._new()
        self._replica = self._new()
        self._point()
        self.keep_up()

    @property
    def url(self) -> str:
        """Where whoever is the primary answers."""
        return f"unix://{quote(str(self._link))}"

    @property
    def client(self) -> Any:
        """A raw client of the primary."""
        return self.primary.client

    @cached_property
    def can_sync(self) -> bool:
        """Whether it has WAITAOF."""
        return any(self.client.execute_command("COMMAND INFO", "WAITAOF"))

    def lag(self) -> None:
        """From here on the replica learns nothing more."""
        until(self._is_level)
        self._replica.client.replicaof("NO", "ONE")

    def fail_over(self) -> None:
        """The primary dies; the replica takes its place as it was when it began to lag. Another begins to follow it."""
        self.primary.kill()
        self.primary, self._replica = self._replica, self._new()
        self._point()
        self.keep_up()

    def keep_file(self) -> None:
        """What the primary has on its disk now is kept beside it."""
        self._forget_file()
        shutil.copytree(self.primary.files, self._kept)

    def go_back(self) -> None:
        """The primary dies, and comes back on the file that was kept."""
        self.primary.kill()
        shutil.rmtree(self.primary.files)
        self._kept.rename(self.primary.files)
        self.primary.start()

    @property
    def _kept(self) -> Path:
        return self._home / "kept"

    def _forget_file(self) -> None:
        shutil.rmtree(self._kept, ignore_errors=True)

    def keep_up(self) -> None:
        """The replica follows the primary, or does so again."""
        self._forget_file()
        self._replica.client.replicaof("127.0.0.1", str(self.primary.port))

    def kill(self) -> None:
        """Both."""
        self._replica.kill()
        self.primary.kill()

    def _is_level(self) -> bool:
        theirs = self.primary.client.info("replication")
        ours = self._replica.client.info("replication")
        is_level = ours["master_repl_offset"] == theirs["master_repl_offset"]
        return bool(ours.get("master_link_status") == "up" and is_level)

    def _new(self) -> RedisServer:
        self._count += 1
        server = RedisServer(self._program, self._home / str(self._count))
        server.start()
        return server

    def _point(self) -> None:
        fresh = self._home / "fresh"
        fresh.symlink_to(self.primary.socket)
        fresh.rename(self._link)


class Postgres(embedded.Postgres):
    """A PostgreSQL that comes back when it was killed."""

    def __init__(self, data: DataFolder, programs: Path) -> None:
        super().__init__(data, programs)
        self._sockets = data.path

    def command(self, sockets: Path) -> list[str]:
        # What a process wrote outlives it; only a machine that dies needs more.
        return [*super().command(sockets), "-c", "fsync=off"]

    def begin(self) -> str:
        """Starts it on what it has, and waits until it takes clients; its URL."""
        self.acquire()
        self.prepare()
        self.start(self._sockets)
        self.wait(self._sockets)
        return self.url(self._sockets)

    def die(self) -> None:
        """SIGKILL to the postmaster. It is back when this returns."""
        self.end()
        self.begin()

    def end(self) -> None:
        """SIGKILL."""
        self._started().kill()
        self._started().wait()
        self.release()


@dataclass(frozen=True)
class Servers:
    """Both."""

    redis: Redises
    postgres: Postgres
    database_url: str


@contextmanager
def servers(settings: Settings) -> Iterator[Servers]:
    """A pair for one piece of seeds, migrated."""
    binaries = programs()
    with folder() as home:
        data = DataFolder(Path(home, "data"))
        data.create()
        redises, postgres = Redises(binaries.redis_server, Path(home)), Postgres(data, binaries.postgres_bin)
        try:
            database_url = postgres.begin()
            migrate(database_url, settings)
            yield Servers(redises, postgres, database_url)
        finally:
            redises.kill()
            postgres.end()
