"""Opening connections: redis-py knows URLs, sockets, TLS, authentication and the retry policy. What it opened is then
held by connections of ours, which cost less: see `connection.py` and `multiplexer.py`."""

from __future__ import annotations

import socket
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import asyncio


def open_socket(url: str, chosen: Mapping[str, Any]) -> socket.socket:
    """A socket on which the server takes commands, opened with these of redis-py's options. Raises what that raises."""
    from redis.connection import ConnectionPool

    pool = ConnectionPool.from_url(url, **chosen)
    opened = pool.connection_class(**pool.connection_kwargs)
    try:
        opened.connect()
    except BaseException:
        opened.disconnect()
        raise
    opened_socket: socket.socket = opened._sock
    opened._sock = None  # so that it does not close it when it goes
    return opened_socket


async def open_streams(url: str, chosen: Mapping[str, Any]) -> tuple[asyncio.StreamWriter, asyncio.WriteTransport]:
    """A transport on which the server takes commands, and its writer, which closes it when it goes."""
    from redis.asyncio.connection import ConnectionPool

    pool: Any = ConnectionPool.from_url(url, **chosen)
    opened = pool.connection_class(**pool.connection_kwargs)
    try:
        await opened.connect()
    except BaseException:
        await opened.disconnect(nowait=True)
        raise
    writer: asyncio.StreamWriter = opened._writer
    opened._writer = opened._reader = None
    return writer, writer.transport
