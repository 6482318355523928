"""Which two servers a plugin talks to: those that were named, or the embedded pair, started on first use."""

from __future__ import annotations

import os
import threading
from collections.abc import Mapping
from typing import TYPE_CHECKING

from banshee_memory.settings import Settings, urls_from

if TYPE_CHECKING:
    from banshee_memory.embedded import Servers


class Connections:
    """The URLs of both servers. Nothing is started or opened before `urls` is first asked for."""

    def __init__(
        self,
        redis_url: str | None,
        database_url: str | None,
        settings: Settings,
        *,
        environ: Mapping[str, str] | None = None,
    ) -> None:
        self._named = urls_from(redis_url, database_url, os.environ if environ is None else environ)
        self._settings = settings
        self._lock = threading.Lock()
        self._servers: Servers | None = None

    @property
    def embedded(self) -> bool:
        """Whether the servers are the bundled ones."""
        return self._named.redis is None

    def urls(self) -> tuple[str, str]:
        """(redis_url, database_url). The embedded servers are started, and migrated, if need be."""
        if self._named.redis is not None and self._named.database is not None:
            return self._named.redis, self._named.database
        with self._lock:
            if self._servers is None:
                self._servers = self._start()
            return self._servers.redis_url, self._servers.database_url

    def _start(self) -> Servers:
        from banshee_memory.cold.migrate import migrate
        from banshee_memory.embedded import start

        servers = start(self._settings.data_dir)
        try:
            migrate(servers.database_url, self._settings)
        except BaseException:
            servers.close()
            raise
        return servers

    def close(self) -> None:
        """Leaves the embedded servers, which stop if nobody else uses them."""
        with self._lock:
            servers, self._servers = self._servers, None
        if servers is not None:
            servers.close()
