"""Where the two servers are and how the tiers behave: one frozen value, from arguments and the environment."""

from __future__ import annotations

import enum
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Literal

import msgspec

from banshee_memory.errors import ConfigurationError

_LANGUAGE = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)?", re.ASCII)


class Durability(enum.StrEnum):
    """How safe a write is when its call returns."""

    HOT = "hot"
    """Redis has it; what a crash of Redis can lose is said by its own append-only settings."""
    SYNCED = "synced"
    """It is on Redis's disk (WAITAOF). Some say so a second early, but for `appendfsync always`."""
    REPLICATED = "replicated"
    """`Settings.replicas` replicas of Redis have it (WAIT)."""
    COLD = "cold"
    """It is committed in PostgreSQL."""


class MemoryPolicy(msgspec.Struct, frozen=True, kw_only=True):
    """How memories of a type are kept, where the caller does not say otherwise."""

    volatile: bool = False
    """Redis only: such a memory is never in PostgreSQL, and gone when Redis lets it go."""
    ttl_seconds: float | None = None
    """Time to live; None: for ever (of a volatile one: `Settings.hot_ttl`)."""
    importance: float | None = None
    """In [0, 1]; None: by the formula of `store_memory`."""


class Settings(msgspec.Struct, frozen=True, kw_only=True):
    """All that can be chosen. Times are in seconds, sizes in bytes (of UTF-8 where it is text)."""

    redis_password: str | None = None
    """Used where the URL holds none."""
    data_dir: Path | None = None
    """Where the embedded servers keep their data; None: BANSHEE_DATA_DIR or the platform's user data folder."""
    db_min_connections: int = 1
    """Connections to PostgreSQL that a client keeps open."""
    db_max_connections: int = 10
    """Connections to PostgreSQL that a client opens at most."""
    connect_timeout: float = 5.0
    """How long opening a connection to either store may take."""
    call_timeout: float = 5.0
    """How long one call to either store may take before the store counts as unavailable."""

    shards: int = 64
    """Fixed when a store is first used; another number is refused afterwards."""
    durability: Durability = Durability.HOT
    """Of a write that does not name its own."""
    durability_timeout: float = 5.0
    """How long a write waits to be SYNCED or REPLICATED before it is `DurabilityUnavailable`."""
    replicas: int = 1
    """How many replicas must have a write for REPLICATED."""

    flush_after: float = 1.0
    """How old a record may get before the daemon carries it to PostgreSQL."""
    flush_batch: int = 5_000
    """Log entries of one flush transaction, over all its shards."""
    flush_timeout: float = 60.0
    """How long `flush()` waits, in all, for shards that someone else is flushing and for its own work."""
    backlog_limit: int | None = 5_000_000
    """Records that may wait in Redis for PostgreSQL, over all shards; None: any number. Each shard has an equal share,
    and one that has used it up takes no more writes. A batch is begun under the limit and then done whole. The limit is
    loaded with the Lua library, so it binds every client; what the daemon's settings say counts."""
    backlog_overflow: Literal["refuse", "slow"] = "refuse"
    """What a write at the limit does: `HotStoreFull` at once, or only after it has waited for `backlog_wait`."""
    backlog_wait: float = 30.0
    """How long a write waits for room in the backlog, where it is to be slowed."""
    degraded_reads: bool = False
    """Whether PostgreSQL answers reads, as of the last flush, while Redis is away (see `last_read_was_stale`). Each
    call asks Redis first: where nobody refuses the connection, that takes `connect_timeout` or `call_timeout`."""
    hot_ttl: float = 3_600.0
    """How long a clean key stays in Redis after its last use."""
    client_cache_entries: int = 0
    """Keys (an agent has three, and one for each memory) of which a client keeps what it read, until Redis says that
    they have changed; 0: none. It listens for that on a connection of its own."""
    client_cache_bytes: int = 67_108_864
    """How much that may be, about."""
    lease_ttl: float = 10.0
    """How long a rehydration may take before its offer is refused."""
    message_cap: int = 50
    """Flushed messages an agent keeps in Redis."""
    event_cap: int = 100
    """Flushed emotional events an agent keeps in Redis."""

    memory_policies: Mapping[str, MemoryPolicy] = {}
    """By type. A type that is none of the eleven must be registered here before it is stored."""
    idempotency_window: float = 86_400.0
    """How long an idempotency key is remembered."""

    message_retention_days: int | None = 90
    """How long messages are kept; None: for ever. A day later they go with their partition, totals stay."""
    event_retention_days: int | None = 30
    """How long emotional events are kept; None: for ever. A day later they go with their partition, trends stay."""
    hourly_rollup_days: int = 90
    """For how long the trends of events that are gone are kept by the hour; then by the day, for ever."""
    partitions_ahead: int = 4
    """Partitions of each table that exist before they are needed (weeks of messages, days of events)."""
    search_language: str = "english"
    """A text search configuration of PostgreSQL; `simple` does not stem. Searches in the daemon's find words by an
    index; any other is as right and takes longer."""

    max_content_bytes: int = 1_000_000
    """Of a message's content."""
    max_json_bytes: int = 1_000_000
    """Of metadata, emotional context, context factors and a memory's data, as JSON."""
    max_json_depth: int = 32
    """How deep objects and arrays in them may be nested."""
    max_key_bytes: int = 512
    """Of a memory's key."""
    max_batch: int = 1_000
    """Messages in one `save_messages`."""

    def __post_init__(self) -> None:
        for name in ("shards", "flush_batch", "message_cap", "event_cap", "max_batch", "db_max_connections"):
            if getattr(self, name) < 1:
                raise ConfigurationError(f"Settings.{name} must be at least 1, not {getattr(self, name)}")
        for name in (
            "flush_after",
            "hot_ttl",
            "lease_ttl",
            "call_timeout",
            "connect_timeout",
            "flush_timeout",
            "backlog_wait",
        ):
            if not getattr(self, name) > 0:
                raise ConfigurationError(f"Settings.{name} must be positive, not {getattr(self, name)}")
        if self.client_cache_entries < 0 or self.client_cache_bytes < 0:
            raise ConfigurationError("Settings.client_cache_entries and client_cache_bytes must not be negative")
        if self.shards > 16_384:
            raise ConfigurationError("Settings.shards must be at most 16384, the number of Redis slots")
        self._check_backlog()
        self._check_language()
        if self.db_min_connections > self.db_max_connections:
            raise ConfigurationError("DB_MIN_CONNECTIONS is greater than DB_MAX_CONNECTIONS")

    def _check_backlog(self) -> None:
        if self.backlog_limit is not None and self.backlog_limit < 1:
            raise ConfigurationError(f"Settings.backlog_limit must be at least 1, or None, not {self.backlog_limit}")
        if self.backlog_overflow not in ("refuse", "slow"):
            raise ConfigurationError(f"Settings.backlog_overflow is refuse or slow, not {self.backlog_overflow!r}")

    def _check_language(self) -> None:
        if not _LANGUAGE.fullmatch(self.search_language):
            raise ConfigurationError(f"Settings.search_language must be a plain name, not {self.search_language!r}")

    @property
    def shard_backlog(self) -> int:
        """A shard's share of `backlog_limit`, rounded up; 0: there is no limit."""
        return 0 if self.backlog_limit is None else -(-self.backlog_limit // self.shards)


class Urls(msgspec.Struct, frozen=True):
    """Where the servers are. None: nobody said, so the embedded server is meant."""

    redis: str | None
    database: str | None


def urls_from(redis_url: str | None, database_url: str | None, environ: Mapping[str, str] = os.environ) -> Urls:
    """The arguments, else REDIS_URL and DATABASE_URL.

    Naming only one of the two is an error: an embedded server beside a named one is never what was meant.
    """
    redis = redis_url or environ.get("REDIS_URL") or None
    database = database_url or environ.get("DATABASE_URL") or None
    if (redis is None) != (database is None):
        named, missing = ("REDIS_URL", "DATABASE_URL") if redis else ("DATABASE_URL", "REDIS_URL")
        raise ConfigurationError(
            f"{named} is set but {missing} is not: set both, or neither to use the embedded servers"
        )
    return Urls(redis, database)


def settings_from(environ: Mapping[str, str] = os.environ) -> Settings:
    """The defaults, with REDIS_PASSWORD, DB_MIN_CONNECTIONS, DB_MAX_CONNECTIONS, BANSHEE_DATA_DIR,
    BANSHEE_SEARCH_LANGUAGE, and, where 0 is none, BANSHEE_BACKLOG_LIMIT, BANSHEE_EVENT_RETENTION_DAYS and
    BANSHEE_MESSAGE_RETENTION_DAYS applied."""
    data_dir = environ.get("BANSHEE_DATA_DIR")
    most = _whole(environ, "DB_MAX_CONNECTIONS", 10)
    return Settings(
        redis_password=environ.get("REDIS_PASSWORD") or None,
        data_dir=Path(data_dir) if data_dir else None,
        db_min_connections=_whole(environ, "DB_MIN_CONNECTIONS", min(1, most)),
        db_max_connections=most,
        backlog_limit=_whole(environ, "BANSHEE_BACKLOG_LIMIT", 5_000_000) or None,
        event_retention_days=_whole(environ, "BANSHEE_EVENT_RETENTION_DAYS", 30) or None,
        message_retention_days=_whole(environ, "BANSHEE_MESSAGE_RETENTION_DAYS", 90) or None,
        search_language=environ.get("BANSHEE_SEARCH_LANGUAGE") or "english",
    )


def _whole(environ: Mapping[str, str], name: str, default: int) -> int:
    text = environ.get(name)
    if not text:
        return default
    if not text.isdecimal():
        raise ConfigurationError(f"{name} must be a whole number, not {text!r}")
    return int(text)
