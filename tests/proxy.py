"""A way to a server that can be cut: wholly, or in the middle of a call, before it is heard or before its answer is."""

from __future__ import annotations

import contextlib
import enum
import selectors
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any
from urllib.parse import unquote, urlsplit

from psycopg import conninfo


class Cut(enum.Enum):
    """When the next connection is cut that sends the call."""

    BEFORE = "the server never hears of it"
    AFTER = "the server does it, and nobody hears of that"


class Proxy:
    """Forwards connections. `call` is what stands in the bytes of the call at which it cuts."""

    def __init__(self, connect: Callable[[], socket.socket], url: Callable[[int], str], call: bytes) -> None:
        self.cut: Cut | None = None
        """When to cut, once."""
        self.call = call
        self.is_down = False
        """Whether every connection ends as soon as it begins."""
        self.cuts = 0
        self._connect = connect
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._open: set[socket.socket] = set()
        self.url = url(self._listener.getsockname()[1])
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

    def _forward(self, client: socket.socket) -> None:
        with client, self._connect() as server, selectors.DefaultSelector() as selector:
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
        if source is not client or self.cut is None or self.call not in data:
            target.sendall(data)
            return bool(data)
        cut, self.cut = self.cut, None
        self.cuts += 1
        if cut is Cut.AFTER:
            target.sendall(data)
            target.recv(1)  # it has been done
        return False


@contextmanager
def _running(proxy: Proxy) -> Iterator[Proxy]:
    try:
        yield proxy
    finally:
        proxy.close()


def proxied(database_url: str) -> contextlib.AbstractContextManager[Proxy]:
    """A proxy before that database, which cuts at COMMIT."""
    parts = conninfo.conninfo_to_dict(database_url)
    host, port = str(parts.get("host", "localhost")), str(parts.get("port", "5432"))

    def connect() -> socket.socket:
        if not host.startswith("/"):
            return socket.create_connection((host, int(port)))
        return _to(f"{host}/.s.PGSQL.{port}")

    def url(at: int) -> str:
        return conninfo.make_conninfo(database_url, host="127.0.0.1", port=str(at), sslmode="disable")

    return _running(Proxy(connect, url, b"COMMIT\0"))


def proxied_redis(redis_url: str) -> contextlib.AbstractContextManager[Proxy]:
    """A proxy before that Redis, which listens on a Unix socket; say at which `call` it cuts."""
    path = unquote(urlsplit(redis_url).path)
    return _running(Proxy(lambda: _to(path), lambda at: f"redis://127.0.0.1:{at}", b"?"))


def _to(path: str) -> socket.socket:
    server = socket.socket(socket.AF_UNIX)
    server.connect(path)
    return server
