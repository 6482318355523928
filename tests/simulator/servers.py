"""Servers to be killed: a Redis with an append-only file and one to replace it, a PostgreSQL that comes back."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from banshee_memory.cold.migrate import migrate
from banshee_memory.settings import Settings
from tests.folders import folder
from tests.postgres_servers import PostgresServer
from tests.redis_servers import Redises, RedisServer, copied, restored
from tests.servers import programs


class Succession:
    """A Redis under one URL, and another that follows it and can take its place."""

    def __init__(self, every: Redises) -> None:
        self._every = every
        self._kept: Path | None = None
        self.primary, self._replica = self._new(), self._new()
        every.front.lead_to(self.primary)
        self.keep_up()

    @property
    def url(self) -> str:
        """Where whoever is the primary answers."""
        return self._every.front.url

    @property
    def client(self) -> Any:
        """A raw client of the primary."""
        return self.primary.client

    @cached_property
    def can_sync(self) -> bool:
        """Whether it has WAITAOF."""
        return self.primary.can_sync

    def lag(self) -> None:
        """From here on the replica learns nothing more."""
        self._replica.await_all_of(self.primary)
        self._replica.promote()

    def fail_over(self) -> None:
        """The primary dies; the replica takes its place as it was when it began to lag. Another begins to follow it."""
        self.primary.kill()
        self.primary, self._replica = self._replica, self._new()
        self._every.front.lead_to(self.primary)
        self.keep_up()

    def keep_file(self) -> None:
        """What the primary has on its disk now is kept beside it."""
        self._forget_file()
        self._kept = copied(self.primary)

    def go_back(self) -> None:
        """The primary dies, and comes back on the file that was kept."""
        restored(self.primary, self._kept)

    def keep_up(self) -> None:
        """The replica follows the primary, or does so again."""
        self._forget_file()
        self._replica.client.replicaof("127.0.0.1", str(self.primary.port))

    def _forget_file(self) -> None:
        if self._kept is not None:
            shutil.rmtree(self._kept)
            self._kept = None

    def _new(self) -> RedisServer:
        return self._every.new(maxmemory_policy="volatile-lru")


@dataclass(frozen=True)
class Servers:
    """Both."""

    redis: Succession
    postgres: PostgresServer
    database_url: str


@contextmanager
def servers(settings: Settings) -> Iterator[Servers]:
    """A pair for one piece of seeds, migrated."""
    with folder("simulator-") as home:
        redises, postgres = Redises(programs().redis_server, Path(home)), PostgresServer(Path(home, "data"))
        try:
            database_url = postgres.begin()
            migrate(database_url, settings)
            yield Servers(Succession(redises), postgres, database_url)
        finally:
            redises.kill()
            postgres.end()
