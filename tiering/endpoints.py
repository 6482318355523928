"""What the daemon says over HTTP: /healthz, /readyz and /metrics, from what its jobs saw last (`watch`).

For this machine, or for a network whose every member may read it: there is no password and no TLS. Nothing that
is said holds content, and no label names an agent.
"""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, NamedTuple

import msgspec

from banshee_memory.errors import ConfigurationError, InvalidInput, shown
from banshee_memory.tiering.watch import Verdict, Watch

_SLOWEST_CLIENT = 10.0
_MISSING = "prometheus-client is not installed: pip install 'banshee-memory[metrics]'\n"


class Page(NamedTuple):
    """An answer."""

    status: HTTPStatus
    kind: str
    body: bytes


def address_of(text: str) -> tuple[str, int] | None:
    """Host and port of `host:port` (IPv6 in brackets, port 0: any that is free); None for `none`; else InvalidInput."""
    if text == "none":
        return None
    host, _, port = text.rpartition(":")
    if not host or not port.isdecimal() or int(port) > 65_535:
        raise InvalidInput("--listen", f"{shown(text)} is not host:port, such as 127.0.0.1:9707, and not `none`")
    return host.removeprefix("[").removesuffix("]"), int(port)


def has_metrics() -> bool:
    """Whether /metrics can be answered here."""
    from importlib.util import find_spec

    return find_spec("prometheus_client") is not None


@contextmanager
def answering(listen: str, watch: Watch, log: Any) -> Iterator[None]:
    """Answers where `listen` says, if anywhere, while the block runs, and tells the log of it."""
    address = address_of(listen)
    if address is None:
        yield
        return
    with listening(address, watch) as url:
        log.info("listening", url=url)
        if not has_metrics():
            log.warning("no metrics", why=_MISSING.strip())
        yield


@contextmanager
def listening(address: tuple[str, int], watch: Watch) -> Iterator[str]:
    """Answers at that address while the block runs; gives the URL. ConfigurationError if it cannot be had."""
    server = _server(address, _pages(watch))
    thread = threading.Thread(target=server.serve_forever, args=(0.1,), name="endpoints", daemon=True)
    thread.start()
    try:
        host, port = server.server_address[:2]
        yield f"http://[{host!s}]:{port}" if server.address_family == socket.AF_INET6 else f"http://{host!s}:{port}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def _pages(watch: Watch) -> dict[str, Callable[[], Page]]:
    return {
        "/healthz": lambda: _told(watch.health()),
        "/readyz": lambda: _told(watch.readiness()),
        "/metrics": _metrics(watch),
    }


def _told(verdict: Verdict) -> Page:
    status = HTTPStatus.OK if verdict.ok else HTTPStatus.SERVICE_UNAVAILABLE
    return Page(status, "application/json", msgspec.json.encode(verdict.body) + b"\n")


def _metrics(watch: Watch) -> Callable[[], Page]:
    if not has_metrics():
        return lambda: Page(HTTPStatus.NOT_IMPLEMENTED, "text/plain; charset=utf-8", _MISSING.encode())
    from banshee_memory.tiering.metrics import KIND, exposition

    exposed = exposition(watch)
    return lambda: Page(HTTPStatus.OK, KIND, exposed())


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    # Another daemon at the same port must be an error also where the system would let both have it.
    allow_reuse_port = False

    def __init__(self, address: tuple[str, int], family: socket.AddressFamily, pages: dict[str, Callable[[], Page]]):
        self.address_family = family
        self.pages = pages
        super().__init__(address, _Handler)

    def handle_error(self, request: object, client_address: object) -> None:
        """Who asked hung up: nobody is to be told."""


def _server(address: tuple[str, int], pages: dict[str, Callable[[], Page]]) -> _Server:
    host, port = address
    try:
        family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][0]
        return _Server(address, family, pages)
    except OSError as exc:
        raise ConfigurationError(
            f"Nothing can listen at {host}:{port}: {exc.strerror or exc}. Is another daemon there? "
            "Give this one another --listen host:port, or `--listen none`."
        ) from exc


class _Handler(BaseHTTPRequestHandler):
    server: _Server
    timeout = _SLOWEST_CLIENT
    server_version = "banshee"
    sys_version = ""

    def do_GET(self) -> None:
        page = self._page()
        self._head(page)
        self.wfile.write(page.body)

    def do_HEAD(self) -> None:
        self._head(self._page())

    def _page(self) -> Page:
        answer = self.server.pages.get(self.path.partition("?")[0])
        if answer is None:
            known = ", ".join(self.server.pages)
            return Page(HTTPStatus.NOT_FOUND, "text/plain; charset=utf-8", f"There is {known}.\n".encode())
        try:
            return answer()
        except Exception as exc:  # noqa: BLE001 - a defect here must be told, and end nothing
            return Page(
                HTTPStatus.INTERNAL_SERVER_ERROR, "text/plain; charset=utf-8", f"{type(exc).__name__}\n".encode()
            )

    def _head(self, page: Page) -> None:
        self.send_response(page.status)
        self.send_header("Content-Type", page.kind)
        self.send_header("Content-Length", str(len(page.body)))
        self.send_header("Cache-Control", "no-store")
        self.end_headers()

    def log_message(self, format: str, *args: object) -> None:
        """Says nothing: whoever scrapes does so all the time."""
