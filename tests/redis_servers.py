"""Redis servers that tests kill, restart, copy and promote, behind one address: a name that leads to one of them."""

from __future__ import annotations

import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import quote

import redis

from tests.own_servers import program_of


class RedisServer:
    """One server with a folder of its own and an append-only file, on a socket and on a port of the loopback."""

    def __init__(self, program: Path, folder: Path, *, appendfsync: str = "always") -> None:
        self.folder = folder
        self.port = free_port()
        self._program = program
        self._appendfsync = appendfsync
        self._process: subprocess.Popen[bytes] | None = None
        folder.mkdir(parents=True, exist_ok=True)

    @property
    def socket(self) -> Path:
        """Where it listens."""
        return self.folder / "s"

    def start(self) -> None:
        """Starts it on what its folder holds."""
        settings = {
            "port": self.port,
            "bind": "127.0.0.1",
            "unixsocket": self.socket,
            "dir": self.folder,
            "appendonly": "yes",
            "appendfsync": self._appendfsync,
            "save": "",
            "logfile": "log",
            "repl-diskless-sync-delay": 0,
        }
        words = [str(word) for name, value in settings.items() for word in (f"--{name}", value)]
        self._process = subprocess.Popen([self._program, *words], stdin=subprocess.DEVNULL)
        _until(self._is_up)

    def _is_up(self) -> bool:
        try:
            return self.command("PING") is True
        except (redis.ConnectionError, redis.BusyLoadingError):
            return False

    def command(self, *words: str | int) -> Any:
        """What it replies."""
        with redis.Redis.from_url(f"unix://{quote(str(self.socket))}") as client:
            client.response_callbacks.pop("COMMAND", None)  # the driver's reading knows one of its forms only
            return client.execute_command(*words)

    @property
    def can_sync(self) -> bool:
        """Whether it has WAITAOF."""
        return bool(self.command("COMMAND", "LIST", "FILTERBY", "PATTERN", "waitaof"))

    def kill(self) -> None:
        """As a power cut does, but for what the kernel has."""
        if self._process is not None:
            self._process.send_signal(signal.SIGKILL)
            self._process.wait()
            self._process = None

    def follow(self, other: RedisServer) -> None:
        """Becomes a replica that has all that the other has."""
        self.command("REPLICAOF", "127.0.0.1", other.port)
        _until(lambda: self._replication().get("master_link_status") == "up")

    def await_all_of(self, other: RedisServer) -> None:
        """Waits until it has what the other has now."""
        _until(lambda: self._replication()["slave_repl_offset"] == other._replication()["master_repl_offset"])

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

    def new(self, *, appendfsync: str = "always") -> RedisServer:
        """A running, empty server."""
        server = RedisServer(self._program, self._folder / str(len(self._servers)), appendfsync=appendfsync)
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
    with tempfile.TemporaryDirectory(prefix="redises-") as folder:
        every = Redises(program_of(like), Path(folder))
        try:
            yield every
        finally:
            every.kill()


def copied(server: RedisServer) -> Path:
    """A copy of what it has on disk now."""
    target = server.folder.with_name(f"{server.folder.name}-copy")
    shutil.copytree(server.folder / "appendonlydir", target)
    return target


def restored(server: RedisServer, copy: Path | None) -> None:
    """Kills it and starts it on that copy; None: on nothing."""
    server.kill()
    shutil.rmtree(server.folder / "appendonlydir")
    if copy is not None:
        shutil.copytree(copy, server.folder / "appendonlydir")
    server.start()


def free_port() -> int:
    """A port of the loopback on which nobody listens."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _until(done: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 30
    while not done():
        assert time.monotonic() < deadline, "the server does not get there"
        time.sleep(0.005)
