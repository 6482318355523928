"""A way to PostgreSQL that can be cut: wholly, or at COMMIT, before the server hears it or after it has done it."""

from __future__ import annotations

import contextlib
import enum
import selectors
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from psycopg import conninfo

COMMIT = b"COMMIT\0"
"""In what the client sends: the statement. In what the server answers: that it was done."""


class Cut(enum.Enum):
    """When the next connection that commits is cut."""

    BEFORE = "the server never hears of the COMMIT"
    AFTER = "the server commits, and nobody hears of it"


class Proxy:
    """Forwards connections to a database."""

    def __init__(self, database_url: str) -> None:
        self.cut: Cut | None = None
        """When to cut, once."""
        self.is_down = False
        """Whether every connection ends as soon as it begins."""
        self.cuts = 0
        parts = conninfo.conninfo_to_dict(database_url)
        self._to = parts
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._open: set[socket.socket] = set()
        self.url = conninfo.make_conninfo(
            database_url, host="127.0.0.1", port=str(self._listener.getsockname()[1]), sslmode="disable"
        )
        self._threads: list[threading.Thread] = []
        self._start(self._accept)

    def go_down(self) -> None:
        """Ends every connection, and those to come."""
        self.is_down = True
        for end in list(self._open):
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)

    def come_back(self) -> None:
        """Forwards again."""
        self.is_down = False

    def close(self) -> None:
        """Ends it."""
        self.go_down()
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        for thread in self._threads:
            thread.join()

    def _start(self, work: Any, *args: Any) -> None:
        thread = threading.Thread(target=work, args=args, daemon=True)
        self._threads.append(thread)
        thread.start()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            if self.is_down:
                client.close()
            else:
                self._start(self._forward, client)

    def _connected(self) -> socket.socket:
        host, port = str(self._to.get("host", "localhost")), str(self._to.get("port", "5432"))
        if not host.startswith("/"):
            return socket.create_connection((host, int(port)))
        server = socket.socket(socket.AF_UNIX)
        server.connect(f"{host}/.s.PGSQL.{port}")
        return server

    def _forward(self, client: socket.socket) -> None:
        with client, self._connected() as server, selectors.DefaultSelector() as selector:
            self._open |= {client, server}
            selector.register(client, selectors.EVENT_READ, server)
            selector.register(server, selectors.EVENT_READ, client)
            with contextlib.suppress(OSError):
                while all(self._passed(key.fileobj, key.data, client) for key, _ in selector.select()):
                    pass
            self._open -= {client, server}

    def _passed(self, source: Any, target: socket.socket, client: socket.socket) -> bool:
        """Hands on what came; False: that was the end."""
        data = source.recv(65536)
        at_commit = self.cut is not None and COMMIT in data
        if at_commit and (source is client) == (self.cut is Cut.BEFORE):
            self.cut = None
            self.cuts += 1
            return False
        target.sendall(data)
        return bool(data)


@contextmanager
def proxied(database_url: str) -> Iterator[Proxy]:
    """A proxy before that database, while the block runs."""
    proxy = Proxy(database_url)
    try:
        yield proxy
    finally:
        proxy.close()
