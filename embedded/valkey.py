"""Valkey, or any Redis from 7.0 on, as a durable server of one folder."""

from __future__ import annotations

import os
import signal
import socket
from pathlib import Path
from urllib.parse import quote

from banshee_memory.embedded.folders import DataFolder
from banshee_memory.embedded.server import Server

_SETTINGS = {
    "port": "0",
    "unixsocketperm": "700",
    "appendonly": "yes",
    "appendfsync": "everysec",
    "save": "",  # the append-only file is the whole truth
    "maxmemory-policy": "volatile-lru",
    "daemonize": "no",
    "set-proc-title": "no",  # a list of processes shows which data directory it serves
}


class Valkey(Server):
    """SIGTERM makes it write and sync its append-only file before it ends."""

    name = "redis"
    socket_name = "redis.sock"
    url_name = "redis_url"
    stop_signal = signal.SIGTERM

    def __init__(self, data: DataFolder, program: Path) -> None:
        super().__init__(data)
        self._program = program

    def prepare(self) -> None:
        """Nothing: it makes its files on its own, and repairs a cut end of its log."""

    def command(self, sockets: Path) -> list[str]:
        settings = {**_SETTINGS, "dir": str(self.data.redis), "unixsocket": str(sockets / self.socket_name)}
        return [
            str(self._program),
            *(word for name, value in settings.items() for word in (f"--{name}", value)),
        ]

    def url(self, sockets: Path) -> str:
        return f"unix://{quote(os.fsencode(sockets / self.socket_name))}"

    def answers(self, pid: int, sockets: Path) -> bool:
        with socket.socket(socket.AF_UNIX) as client:
            client.settimeout(1)
            try:
                client.connect(str(sockets / self.socket_name))
                client.sendall(b"PING\r\n")
                return client.recv(64).startswith(b"+PONG")  # -LOADING while it replays its log
            except OSError:
                return False
