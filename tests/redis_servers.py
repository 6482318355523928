"""A Redis that a test starts, kills, limits, restarts on what it left, copies, lets follow another, promotes; and one
address in front of several."""

from __future__ import annotations

import shutil
import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import quote

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from tests.folders import folder
from tests.servers import limit_files, program_of, until

DEFAULTS: dict[str, str | int] = {
    "bind": "127.0.0.1",
    "save": "",
    "logfile": "log",
    "appendonly": "yes",
    "appendfsync": "always",
    "auto-aof-rewrite-percentage": 0,
    "repl-diskless-sync": "yes",
    "repl-diskless-sync-delay": 0,
}
"""Every write is in its append-only file before it is acknowledged."""


class RedisServer:
    """One with a folder of its own, on a socket and on a port of the loopback. `settings`: those of `redis.conf`, where
    `_` stands for `-`."""

    def __init__(self, program: Path, folder: Path, **settings: str | int) -> None:
        self.folder = folder
        self.socket = folder / "s"
        self.port = free_port()
        self.url = f"unix://{quote(str(self.socket))}"
        self.client: Any = redis.Redis(unix_socket_path=str(self.socket), retry=Retry(NoBackoff(), 0))
        """A raw client, which keeps its connection."""
        self._program = program
        self._settings = DEFAULTS | {name.replace("_", "-"): value for name, value in settings.items()}
        self._process: subprocess.Popen[bytes] | None = None
        folder.mkdir(parents=True, exist_ok=True)

    @property
    def files(self) -> Path:
        """Its append-only file, which is a folder of several."""
        return self.folder / "appendonlydir"

    def start(self) -> None:
        """Starts it on what its folder holds, and waits until it answers."""
        settings = {"port": self.port, "unixsocket": self.socket, "dir": self.folder, **self._settings}
        words = [str(word) for name, value in settings.items() for word in (f"--{name}", value)]
        # A file that grows too large is an error to it, as a full disk is, and not a signal that ends it.
        self._process = subprocess.Popen([self._program, *words], stdin=subprocess.DEVNULL, restore_signals=False)
        until(self.client.ping, redis.ConnectionError, redis.exceptions.BusyLoadingError)

    def command(self, *words: str | int) -> Any:
        """What it replies, on a connection of its own."""
        with redis.Redis.from_url(self.url) as client:
            client.response_callbacks.pop("COMMAND", None)  # the driver's reading knows one of its forms only
            return client.execute_command(*words)

    @property
    def can_sync(self) -> bool:
        """Whether it has WAITAOF."""
        return bool(self.command("COMMAND", "LIST", "FILTERBY", "PATTERN", "waitaof"))

    def limit_growth(self, by: int | None) -> None:
        """The append-only file may grow by that many bytes; None: by any."""
        assert self._process is not None
        size = max(path.stat().st_size for path in self.files.glob("*.aof"))
        limit_files(self._process.pid, None if by is None else size + by)

    def kill(self) -> None:
        """As a power cut does, but for what the kernel has."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None
        self.client.connection_pool.disconnect()

    def follow(self, other: RedisServer) -> None:
        """Becomes a replica that has all that the other has."""
        self.command("REPLICAOF", "127.0.0.1", other.port)
        until(lambda: self._replication().get("master_link_status") == "up")

    def await_all_of(self, other: RedisServer) -> None:
        """Waits until it has what the other has now."""
        until(lambda: self._is_level_with(other))

    def _is_level_with(self, other: RedisServer) -> bool:
        ours, theirs = self._replication(), other._replication()
        is_level = ours.get("slave_repl_offset") == theirs["master_repl_offset"]
        return bool(ours.get("master_link_status") == "up" and is_level)

    def _replication(self) -> dict[str, Any]:
        return dict(self.command("INFO", "replication"))

    def promote(self) -> None:
        """Stops following: from here on it has what it has."""
        self.command("REPLICAOF", "NO", "ONE")


class Front:
    """The address that clients know."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self.url = f"unix://{quote(str(path))}"

    def lead_to(self, server: RedisServer) -> None:
        """New connections go to that server."""
        new = self._path.with_suffix(".new")
        new.symlink_to(server.socket)
        new.replace(self._path)


class Redises:
    """Servers of one program, and the address in front of them."""

    def __init__(self, program: Path, folder: Path) -> None:
        self._program = program
        self._folder = folder
        self._servers: list[RedisServer] = []
        self.front = Front(folder / "front")

    def new(self, **settings: str | int) -> RedisServer:
        """A running, empty server."""
        server = RedisServer(self._program, self._folder / str(len(self._servers)), **settings)
        self._servers.append(server)
        server.start()
        return server

    def kill(self) -> None:
        """Ends them all."""
        for server in self._servers:
            server.kill()


@contextmanager
def redises(like: str) -> Iterator[Redises]:
    """Servers like that one, which end with the block."""
    with folder("redises-") as home:
        every = Redises(program_of(like), Path(home))
        try:
            yield every
        finally:
            every.kill()


def copied(server: RedisServer) -> Path:
    """A copy of what it has on disk now."""
    target = server.folder.with_name(f"{server.folder.name}-copy")
    shutil.copytree(server.files, target)
    return target


def restored(server: RedisServer, copy: Path | None) -> None:
    """Kills it and starts it on that copy; None: on nothing."""
    server.kill()
    shutil.rmtree(server.files)
    if copy is not None:
        shutil.copytree(copy, server.files)
    server.start()


def free_port() -> int:
    """A port of the loopback on which nobody listens."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
