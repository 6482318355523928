"""The bytes of an agent in Redis, by MEMORY USAGE, on private servers:

    python bench/footprint.py [--write]

A state of five emotions, 50 messages, one memory with what the index says of it, one entry of the log; each beside the
bytes that were to be kept; and what that makes of some servers. `--write` puts both tables into docs/performance.md.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

sys.path.insert(0, str(Path(__file__).parents[1]))

from banshee_memory import MemoryPlugin
from banshee_memory.cli.workload import MESSAGES, METADATA, TOKENS, WORDS
from banshee_memory.hot.keys import AgentKeys, agent_keys, member_of
from bench import pages, world
from bench.targets import Cell

STATE, LIST = 400, 1.05
A_KEY = 30
"""Bytes that a key with a TTL takes beside what MEMORY USAGE tells of it: its places in two tables."""
RESERVE = 1.3
OUTAGE = 3_600
SERVERS = ((10_000, 50, 5, 100), (100_000, 50, 5, 500), (1_000_000, 20, 5, 1_000), (1_000_000, 50, 20, 1_000))
"""Agents that are resident, messages kept and memories of each, records a second."""


class Size(NamedTuple):
    """`held`: bytes as MEMORY USAGE tells them; `payload`: those of what is kept, without names and structure."""

    what: str
    held: int
    payload: int


def sizes(memory: MemoryPlugin, redis: Any) -> list[Size]:
    """Of one agent that is read, and of what a message adds to the log."""
    keys = agent_keys(world.READERS[0], memory.settings.shards)
    member = member_of("fact", "river")
    value, index = keys.memory(member), redis.zrange(keys.memories, 0, -1)
    return [
        Size("state, 5 emotions", _held(redis, keys.state), sum(map(len, _flat(redis.hgetall(keys.state))))),
        Size("50 messages", _held(redis, keys.messages), sum(map(len, redis.lrange(keys.messages, 1, -1)))),
        Size("a memory of 300 bytes", _held(redis, value), redis.strlen(value)),
        Size("index of one memory", _held(redis, keys.memories), sum(map(len, index)) + 8 * len(index)),
        _entry(memory, redis, keys),
    ]


def _entry(memory: MemoryPlugin, redis: Any, keys: AgentKeys) -> Size:
    """What each of a thousand messages adds to the log."""
    memory.flush()
    count, before = 1_000, _held(redis, keys.log)
    for _ in range(count):
        memory.conversations.save_message(keys.agent, "user", WORDS * 2, METADATA, tokens_used=TOKENS)
    fields = [list(entry.values()) for _, entry in redis.xrange(keys.log)]
    size = Size(
        "a message's entry in the log",
        (_held(redis, keys.log) - before) // count,
        sum(len(value) for values in fields for value in values) // count,
    )
    memory.flush()
    return size


def _held(redis: Any, key: str) -> int:
    return int(redis.memory_usage(key, samples=0) or 0)


def _flat(fields: dict[bytes, bytes]) -> list[bytes]:
    return [word for pair in fields.items() for word in pair]


def cells(memory: MemoryPlugin, redis: Any) -> Iterator[Cell]:
    """What is promised."""
    found = {size.what: size for size in sizes(memory, redis)}
    state, messages = found["state, 5 emotions"], found["50 messages"]
    yield Cell("bytes of a state of 5 emotions", f"about {STATE}, not more", STATE, at_most=True, found=state.held)
    ratio = messages.held / messages.payload
    yield Cell("bytes of a list of 50 messages", f"about {LIST} × payload", LIST, at_most=True, found=ratio)


def table(found: list[Size]) -> Iterator[str]:
    """As Markdown."""
    yield "| what | bytes in Redis | bytes that are kept in it | ratio |"
    yield "|---|---:|---:|---:|"
    for size in found:
        yield f"| {size.what} | {size.held:,} | {size.payload:,} | {size.held / size.payload:.2f} |"


def sizing(found: list[Size]) -> Iterator[str]:
    """What some servers need, as Markdown."""
    state, messages, memory, index, entry = (size.held for size in found)
    yield "| agents in hot_ttl | messages each | memories each | records a second | agents | an hour | maxmemory |"
    yield "|---:|---:|---:|---:|---:|---:|---:|"
    for agents, kept, known, rate in SERVERS:
        one = state + messages * kept / MESSAGES + known * (memory + A_KEY) + index + 3 * A_KEY
        hot, waiting = agents * one, rate * OUTAGE * entry
        sizes = " | ".join(f"{size / 2**30:.1f} GiB" for size in (hot, waiting, (hot + waiting) * RESERVE))
        yield f"| {agents:,} | {kept} | {known} | {rate:,} | {sizes} |"


def main() -> None:
    """Prints the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--write", action="store_true")
    options = parser.parse_args()
    import redis

    from banshee_memory.embedded import start

    with (
        tempfile.TemporaryDirectory(prefix="bench-") as folder,
        start(Path(folder)) as servers,
        MemoryPlugin(servers.database_url, servers.redis_url) as memory,
        redis.Redis.from_url(servers.redis_url) as client,
    ):
        memory.migrate()
        world.begin(memory)
        found = sizes(memory, client)
    tables = {"bytes": list(table(found)), "sizing": list(sizing(found))}
    print("\n\n".join("\n".join(lines) for lines in tables.values()))
    for name, lines in tables.items() if options.write else ():
        pages.put(pages.PERFORMANCE, name, lines)


if __name__ == "__main__":
    main()
