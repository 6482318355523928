"""Which servers a command talks to, and opening them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from banshee_memory.connections import Connections
from banshee_memory.plugin import MemoryPlugin
from banshee_memory.settings import Settings, settings_from

if TYPE_CHECKING:
    from banshee_memory.cold.client import ColdStore
    from banshee_memory.hot.client import HotStore

F = TypeVar("F", bound=Callable[..., Any])


class Target:
    """What the options before the command said. `data_dir`, where given, means the embedded servers."""

    def __init__(self, redis_url: str | None, database_url: str | None, data_dir: Path | None) -> None:
        self._redis_url = redis_url
        self._database_url = database_url
        self.data_dir = data_dir

    def settings(self) -> Settings:
        """The settings of the environment, and of the options."""
        settings = settings_from()
        if self.data_dir is not None:
            import msgspec

            return msgspec.structs.replace(settings, data_dir=self.data_dir)
        return settings

    def is_embedded(self) -> bool:
        """Whether nobody named servers, so that the embedded ones are used."""
        return self._connections().embedded

    @contextmanager
    def urls(self, *, heed_environment: bool = True) -> Iterator[tuple[str, str]]:
        """(redis_url, database_url) of servers that run at least until the block ends."""
        connections = self._connections(heed_environment=heed_environment)
        try:
            yield connections.urls()
        finally:
            connections.close()

    def _connections(self, *, heed_environment: bool = True) -> Connections:
        environ: Mapping[str, str] | None = None if heed_environment and self.data_dir is None else {}
        return Connections(self._redis_url, self._database_url, self.settings(), environ=environ)

    @contextmanager
    def plugin(self, *, heed_environment: bool = True) -> Iterator[MemoryPlugin]:
        """The plugin over these servers."""
        with (
            self.urls(heed_environment=heed_environment) as (redis_url, database_url),
            MemoryPlugin(database_url, redis_url, settings=self.settings()) as memory,
        ):
            yield memory

    @contextmanager
    def tiers(self) -> Iterator[tuple[Settings, HotStore, ColdStore]]:
        """Both tiers by themselves, for what is about them rather than about agents."""
        from banshee_memory.cold.client import ColdStore
        from banshee_memory.hot.client import HotStore
        from banshee_memory.tiering.recovery import Recoverer

        settings = self.settings()
        with self.urls() as (redis_url, database_url):
            hot, cold = HotStore(redis_url, settings), ColdStore(database_url, settings)
            hot.recovery = Recoverer(settings, hot, cold)
            try:
                yield settings, hot, cold
            finally:
                hot.close()
                cold.close()


pass_target = click.make_pass_decorator(Target)


def json_option(command: F) -> F:
    """`--json`."""
    return click.option("--json", "as_json", is_flag=True, help="Print JSON.")(command)
