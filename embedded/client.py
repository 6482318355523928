"""The user's side: join the supervisor of a data directory, or start one."""

from __future__ import annotations

import json
import os
import socket
import time
import weakref
from contextlib import suppress
from pathlib import Path
from typing import Self

from banshee_memory.embedded.binaries import Binaries, bundled
from banshee_memory.embedded.folders import CONTROL_SOCKET, DataFolder, default_data_dir
from banshee_memory.embedded.launch import Candidate
from banshee_memory.errors import ConfigurationError

_START_WITHIN = 90.0
_POLL = 0.01
_ATTEMPTS = 3


class Servers:
    """Two running servers, kept running while this is open (and while others use them).

    Not inherited by `fork`: a child that uses the servers calls `start` itself, or relies on its parent to stay.
    """

    def __init__(self, connection: socket.socket, data_dir: Path, redis_url: str, database_url: str) -> None:
        self.data_dir = data_dir
        self.redis_url = redis_url
        self.database_url = database_url
        self._connection = connection
        _open.add(self)

    def close(self) -> None:
        """Leave. The last user's leaving stops the servers, within a second; the data stays. Idempotent."""
        self._connection.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


_open: weakref.WeakSet[Servers] = weakref.WeakSet()


def _leave_to_parent() -> None:
    for servers in list(_open):
        servers.close()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_leave_to_parent)


def start(data_dir: Path | None = None, *, binaries: Binaries | None = None) -> Servers:
    """Start the servers of a data directory, or join those that run.

    `data_dir`: default BANSHEE_DATA_DIR, else the platform's folder for user data. `binaries`: default the
    bundled ones; of several users of one directory, those of the first are run.
    """
    chosen = binaries or bundled()
    data = DataFolder((data_dir or default_data_dir()).expanduser().absolute())
    try:
        data.path.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as exc:
        raise ConfigurationError(f"The data directory {data.path} cannot be made: {exc}") from exc
    return _Start(data, chosen).run()


class _Start:
    """One call of `start`: joining and starting, until one of them succeeds or the time is up."""

    def __init__(self, data: DataFolder, binaries: Binaries) -> None:
        self._data = data
        self._binaries = binaries
        self._deadline = time.monotonic() + _START_WITHIN

    def run(self) -> Servers:
        joined = self._join()
        said = ""
        for _ in range(_ATTEMPTS):
            if joined is not None:
                return joined
            candidate = Candidate(self._data.path, self._binaries)
            try:
                joined = self._follow(candidate)
                said = candidate.last_words()
            finally:
                candidate.close()
        if joined is not None:
            return joined
        raise self._failed("its supervisor ended before the servers were up", said)

    def _follow(self, candidate: Candidate) -> Servers | None:
        """Wait until our supervisor serves us, or another does. None: it ended without a word."""
        while True:
            if candidate.has_news(_POLL):
                return self._greeted(candidate.take_connection())
            joined = self._join()
            if joined is not None:
                return joined
            self._remaining()

    def _join(self) -> Servers | None:
        """Become a user of the supervisor that runs. None: there is none, or it is leaving."""
        sockets = self._data.sockets()
        if sockets is None:
            return None
        connection = socket.socket(socket.AF_UNIX)
        connection.settimeout(self._remaining())
        try:
            connection.connect(str(sockets / CONTROL_SOCKET))
        except PermissionError as exc:
            connection.close()
            raise ConfigurationError(f"The servers of {self._data.path} run for another user: {exc}") from exc
        except OSError:
            connection.close()
            return None
        return self._greeted(connection)

    def _greeted(self, connection: socket.socket) -> Servers | None:
        """Wait for the greeting on a connection and keep it open. None: it was closed without one."""
        try:
            greeting = self._read(connection)
            news: dict[str, str] = json.loads(greeting) if greeting.endswith(b"\n") else {}
            if "error" in news:
                raise ConfigurationError(news["error"])
            servers = Servers(connection, self._data.path, news["redis_url"], news["database_url"]) if news else None
        except BaseException:
            connection.close()
            raise
        if servers is None:
            connection.close()
        return servers

    def _read(self, connection: socket.socket) -> bytes:
        greeting = b""
        with suppress(ConnectionError):
            while not greeting.endswith(b"\n"):
                connection.settimeout(self._remaining())
                chunk = connection.recv(1 << 16)
                if not chunk:
                    break
                greeting += chunk
        return greeting

    def _remaining(self) -> float:
        remaining = self._deadline - time.monotonic()
        if remaining <= 0:
            raise self._failed(f"they were not up within {_START_WITHIN:.0f} s", "")
        return remaining

    def _failed(self, why: str, said: str) -> ConfigurationError:
        return ConfigurationError(
            f"The embedded servers of {self._data.path} did not start: {why}. {said}\n"
            f"Their logs are in {self._data.logs}; the supervisor's ends with:\n"
            f"{self._data.log_tail('supervisor')}"
        )
