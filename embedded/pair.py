"""The two servers together: started side by side, stopped side by side, one started again when it dies."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Sequence
from pathlib import Path

from banshee_memory.embedded.failure import StartError, note
from banshee_memory.embedded.server import Server

_RESTARTS, _WITHIN = 5, 60.0


class Pair:
    """Owns the servers of a data directory from `acquire` to `stop`."""

    def __init__(self, servers: Sequence[Server]) -> None:
        self._servers = servers
        self._restarts: deque[float] = deque(maxlen=_RESTARTS)

    def acquire(self) -> None:
        """Wait for the locks: what is left of an earlier pair ends first."""
        for server in self._servers:
            server.acquire()

    def start(self, sockets: Path) -> None:
        """Start both and wait until both take clients."""
        for server in self._servers:
            server.prepare()
        for server in self._servers:
            server.start(sockets)
        for server in self._servers:
            server.wait(sockets)

    def urls(self, sockets: Path) -> dict[str, str]:
        """How to reach both."""
        return {server.url_name: server.url(sockets) for server in self._servers}

    def revive(self, sockets: Path) -> None:
        """Start again what has died."""
        for server in self._servers:
            if server.is_down():
                self._count_restart(server)
                server.acquire()  # its own children may outlive it for a moment
                server.prepare()
                server.start(sockets)
                server.wait(sockets)

    def stop(self) -> None:
        """Shut both down cleanly and wait for it."""
        for server in self._servers:
            server.ask_to_stop()
        for server in self._servers:
            server.finish()

    def _count_restart(self, server: Server) -> None:
        now = time.monotonic()
        if len(self._restarts) == _RESTARTS and now - self._restarts[0] < _WITHIN:
            raise StartError(f"{server.name} ended {_RESTARTS} times within {_WITHIN:.0f} s; all is stopped")
        self._restarts.append(now)
        note(f"{server.name} ended while in use; it is started again")
