"""The bytes of an agent in Redis, by MEMORY USAGE, on private servers:

    python bench/footprint.py [--write]

A state of five emotions, 50 messages, one memory with what the index says of it, one entry of the log; each beside the
bytes that were to be kept. `--write` puts the table into docs/performance.md.
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
from banshee_memory.cli.workload import METADATA, TOKENS, WORDS
from banshee_memory.hot.keys import AgentKeys, agent_keys, member_of
from bench import pages, world
from bench.targets import Cell

STATE, LIST = 400, 1.05


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


def main() -> None:
    """Prints the table."""
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
        lines = list(table(sizes(memory, client)))
    print("\n".join(lines))
    if options.write:
        pages.put(pages.PERFORMANCE, "bytes", lines)


if __name__ == "__main__":
    main()
