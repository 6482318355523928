"""The least a round trip can take: a bare socket and hiredis, over the same URL as everything else."""

from __future__ import annotations

from typing import Any

from banshee_memory.hot.location import options
from banshee_memory.hot.opening import open_socket
from banshee_memory.settings import Settings


class Floor:
    """Sends bytes, waits for the reply. Connected, encrypted and authenticated like any connection of the package."""

    def __init__(self, redis_url: str, settings: Settings) -> None:
        import hiredis
        from redis.retry import Retry

        self._reader: Any = hiredis.Reader()
        self._pack: Any = hiredis.pack_command
        self._buffer = bytearray(65_536)
        self._socket = open_socket(redis_url, options(settings, redis_url, Retry))

    def __del__(self) -> None:
        if hasattr(self, "_socket"):  # whoever was interrupted before this was in his hands does not close it
            self.close()

    def ping(self) -> Any:
        """Nothing there, nothing back."""
        return self._ask(b"*1\r\n$4\r\nPING\r\n")

    def echo(self, payload: bytes) -> Any:
        """So many bytes, there and back."""
        return self._ask(self._pack(("ECHO", payload)))

    def _ask(self, packed: bytes) -> Any:
        self._socket.sendall(packed)
        while (reply := self._reader.gets()) is False:
            size = self._socket.recv_into(self._buffer)
            if not size:
                raise ConnectionError("Redis closed the connection")
            self._reader.feed(self._buffer, 0, size)
        return reply

    def close(self) -> None:
        """Closes it."""
        self._socket.close()
