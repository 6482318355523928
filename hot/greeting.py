"""What is asked of a Redis server before it is used, and what its answers must be. Pure; the clients do the asking."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from banshee_memory.errors import ConfigurationError, DurabilityUnavailable
from banshee_memory.hot.calls import Argument
from banshee_memory.settings import Durability, Settings
from banshee_memory.stamps import Receipt

Info = Mapping[str, str]


def parse_info(reply: bytes) -> dict[str, str]:
    """INFO as a mapping."""
    lines = (line.partition(":") for line in reply.decode(errors="replace").splitlines() if ":" in line)
    return {name: value.strip() for name, _, value in lines}


def check_policy(info: Info) -> None:
    """Refuses a server that may evict what is nowhere else: keys without a TTL are not in PostgreSQL yet."""
    policy = info.get("maxmemory_policy", "noeviction")
    if policy.startswith("allkeys-"):
        raise ConfigurationError(
            f"Redis has maxmemory-policy {policy}, under which it may evict what is not in PostgreSQL yet. "
            "Set volatile-lru, volatile-ttl or noeviction."
        )


def check_shards(wanted: int, fixed: int | None) -> None:
    """Refuses another number of shards than the store was first used with."""
    if fixed is not None and wanted != fixed:
        raise ConfigurationError(
            f"This Redis store was first used with {fixed} shards, and Settings.shards is {wanted}. Set it to {fixed}."
        )


def waiting(level: Durability, settings: Settings) -> tuple[Argument, ...]:
    """The command that waits until the writes of its connection are as safe as that."""
    timeout = int(settings.durability_timeout * 1000)
    if level is Durability.SYNCED:
        return ("WAITAOF", 1, 0, timeout)
    return ("WAIT", settings.replicas, timeout)


def check_can_give(level: Durability, settings: Settings, info: Info, waitaof: Any) -> None:
    """Refuses, before the write, a level that this server cannot give."""
    if level is Durability.SYNCED:
        if not waitaof or not waitaof[0]:
            raise DurabilityUnavailable("SYNCED needs WAITAOF (Redis 7.2 or Valkey), which this server does not have.")
        if info.get("aof_enabled") != "1":
            raise DurabilityUnavailable("SYNCED needs the append-only file; this server runs with `appendonly no`.")
    else:
        replicas = int(info.get("connected_slaves", "0"))
        if replicas < settings.replicas:
            raise DurabilityUnavailable(
                f"REPLICATED needs {settings.replicas} replicas (Settings.replicas); {replicas} are connected."
            )


def confirmed(level: Durability, settings: Settings, reply: Any) -> bool:
    """Whether the wait was over because all had it, and not because of its timeout."""
    if level is Durability.SYNCED:
        return int(reply[0]) >= 1
    return int(reply) >= settings.replicas


def taken_by_another(result: object, receipt: Receipt) -> DurabilityUnavailable:
    """The error of a write after which Redis was replaced by another server, which need not have it."""
    return DurabilityUnavailable(
        "Redis was replaced by another server after it took the write, so the write may be lost. `banshee stats` tells "
        "what is known of that; a retry with its idempotency key is safe.",
        applied=True,
        result=result,
        receipt=receipt,
    )


def unconfirmed(level: Durability, settings: Settings, result: object, receipt: Receipt) -> DurabilityUnavailable:
    """The error of a write that is applied and not confirmed in time."""
    return DurabilityUnavailable(
        f"The write is in Redis, but not known to be {level.value} within {settings.durability_timeout:g} s "
        "(Settings.durability_timeout); the next flush carries it to PostgreSQL all the same.",
        applied=True,
        result=result,
        receipt=receipt,
    )
