"""Hot operations among a thousand to a million resident agents, and among a thousand to five million cold messages:

    make bench-scaling, or python bench/scaling.py [--agents N ...] [--cold N ...] [--messages N] [--rounds N]
        [--redis-server PROGRAM] [--write]

For each size a private pair of servers is up, all on one core, and the same thousand agents are called in each in turn,
block by block; what these said is in PostgreSQL beside the cold messages. The others are made of one that the library
made: every key of its, copied under their names (DUMP and RESTORE), with so many messages. Redis's append-only file is
off, so that no rewrite of it falls into the measurement. Which allocator the server was built with is told, too: it
decides what small writes cost in a heap of gigabytes.
"""

from __future__ import annotations

import argparse
import asyncio
import statistics
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import UUID

import hiredis
import redis

sys.path.insert(0, str(Path(__file__).parents[1]))

from banshee_memory import MemoryPlugin, NewMessage
from banshee_memory.cli.workload import DATA, METADATA, TOKENS, WORDS, calls, feel, settle
from banshee_memory.cold.client import ColdStore
from banshee_memory.cold.session import BoundedConnection, connection_arguments
from banshee_memory.embedded import Binaries, start
from banshee_memory.embedded.binaries import bundled
from banshee_memory.hot.keys import AgentKeys, agent_keys, member_of
from bench import cold_world, pages
from bench.floors import BareSocket
from bench.measuring import Case, Ratio, measure, pin

LIMIT = 0.10
KEPT_MS = 24 * 3_600_000
PARTITIONS = 30
AT_ONCE = 500
SAMPLED = 200


def _agents(first: int, count: int) -> list[UUID]:
    return [UUID(int=(first << 124) + 0x4000_8000_0000_0000_0000 + n * 7919) for n in range(count)]


READERS, WRITERS, (MODEL,) = _agents(0xA, 500), _agents(0xB, 500), _agents(0xC, 1)
MEASURED = len(READERS) + len(WRITERS)


@dataclass
class World:
    """A pair of servers with so many agents in Redis and so many messages in PostgreSQL."""

    agents: int
    cold: int
    memory: MemoryPlugin
    redis: Any
    others: list[UUID]
    added: float = 0.0
    """Bytes that each of the others added to `used_memory`."""

    @property
    def name(self) -> str:
        """How much it holds."""
        return told(self.cold or self.agents)

    @property
    def server(self) -> str:
        """What runs there, and its allocator."""
        told = self.redis.info()
        kind = "Valkey" if "valkey_version" in told else "Redis"
        return f"{kind} {told.get('valkey_version', told['redis_version'])} with {told['mem_allocator']}"

    def keys(self, agent: UUID) -> list[str]:
        """Those that one of the others has."""
        return _keys(agent_keys(agent, self.memory.settings.shards))

    def sampled(self) -> float:
        """Bytes of one of the others, as MEMORY USAGE tells them."""
        some = self.others[:: max(len(self.others) // SAMPLED, 1)]
        return statistics.mean(sum(self.redis.memory_usage(key, samples=0) for key in self.keys(a)) for a in some)


def told(size: int) -> str:
    """`1 k`, `5 M`."""
    return f"{size / 1e6:g} M" if size >= 1e6 else f"{size / 1e3:g} k"


def _keys(keys: AgentKeys) -> list[str]:
    return [keys.state, keys.messages, keys.memories, keys.memory(member_of("fact", "river"))]


def world(stack: ExitStack, programs: Binaries, agents: int, cold: int, messages: int) -> World:
    """Up and filled."""
    folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="bench-")))
    servers = stack.enter_context(start(folder, binaries=programs))
    client = stack.enter_context(redis.Redis.from_url(servers.redis_url))
    client.config_set("appendonly", "no")
    memory = stack.enter_context(MemoryPlugin(servers.database_url, servers.redis_url))
    memory.migrate()
    if cold:
        _fill(servers.database_url, cold)
    settle(memory, [*READERS, *WRITERS])
    made = World(agents, cold, memory, client, _agents(0xD, agents - MEASURED))
    _model(memory, messages)
    memory.flush()
    if made.others:
        _populate(made, servers.redis_url)
    return made


def _model(memory: MemoryPlugin, messages: int) -> None:
    """The agent of which the others are copies."""
    said = NewMessage(role="user", content=WORDS * 2, metadata=METADATA, tokens_used=TOKENS)
    memory.conversations.save_messages(MODEL, [said] * messages)
    memory.memories.store_memory(MODEL, "fact", "river", DATA)
    feel(memory, [MODEL])


def _populate(made: World, url: str) -> None:
    values = [made.redis.dump(key) for key in made.keys(MODEL)]
    before, count = made.redis.info("memory")["used_memory"], len(values)
    with closing(BareSocket(url)) as bare:
        for begin in range(0, len(made.others), AT_ONCE):
            some = made.others[begin : begin + AT_ONCE]
            print(f"{made.name}: {begin:,} agents", end="\r", file=sys.stderr)
            commands = (
                hiredis.pack_command(("RESTORE", key, KEPT_MS, value))
                for agent in some
                for key, value in zip(made.keys(agent), values, strict=True)
            )
            bare.ask(b"".join(commands), len(some) * count)
    found = made.redis.exists(*made.keys(made.others[-1]))
    if found != count:
        raise RuntimeError(f"{found} of {count} keys are there")
    made.added = (made.redis.info("memory")["used_memory"] - before) / len(made.others)


def _fill(database_url: str, rows: int) -> None:
    settings = cold_world.SETTINGS
    with (
        BoundedConnection.connect(**connection_arguments(database_url, settings)) as connection,
        closing(ColdStore(database_url, settings)) as store,
    ):
        connection.execute("SET statement_timeout = 0")
        cold_world.fill(cold_world.World(rows, PARTITIONS, connection, store))


@dataclass(frozen=True)
class Line:
    """An operation in each of some worlds, and how many times the first one's time it takes in the others."""

    cases: Sequence[Case]
    ratios: Sequence[Ratio]

    @property
    def worst(self) -> Ratio:
        """The one that lies furthest from 1."""
        return max(self.ratios, key=lambda ratio: abs(ratio.median - 1))

    def __str__(self) -> str:
        worst, times = self.worst, " | ".join(f"{case.p50:.1f}" for case in self.cases)
        verdict = "pass" if abs(worst.median - 1) < LIMIT else "falls short"
        numbers = f"{worst.median - 1:+.1%} | {worst.quiet - 1:+.1%} | {worst.noise:.1%} | {verdict}"
        return f"| {self.cases[0].operation} | {times} | {numbers} |"


def lines(worlds: Sequence[World], cases: Sequence[Case], what: str) -> Iterator[str]:
    """A table, as Markdown: the operations down, these worlds across."""
    columns = " | ".join(f"{each.name} {what}" for each in worlds)
    yield f"| p50 µs among | {columns} | greatest difference | at p10 | ± | under {LIMIT:.0%} |"
    yield f"|---|{'---:|' * len(worlds)}---:|---:|---:|---|"
    for operation in dict.fromkeys(case.operation for case in cases):
        found = {case.name: case for case in cases if case.operation == operation}
        across = [found[f"{each.name} {what}"] for each in worlds]
        yield str(Line(across, [case.times(across[0]) for case in across[1:]]))


def resident(worlds: Sequence[World], messages: int) -> Iterator[str]:
    """What an agent costs, as Markdown."""
    yield f"| agents, {messages} messages and a memory each | bytes of `used_memory` an agent | by MEMORY USAGE |"
    yield "|---:|---:|---:|"
    for each in worlds:
        if each.added:
            yield f"| {each.name} | {each.added:,.0f} | {each.sampled():,.0f} |"


def main() -> None:
    """Fills, measures and prints."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--agents", type=int, nargs="+", default=[1_000, 10_000, 100_000, 1_000_000])
    parser.add_argument("--cold", type=int, nargs="*", default=[1_000, 5_000_000])
    parser.add_argument("--messages", type=int, default=10, help="of each agent that is not measured")
    parser.add_argument("--rounds", type=int, default=60)
    parser.add_argument("--redis-server", type=Path, help="another program than the bundled one")
    parser.add_argument("--write", action="store_true", help="into docs/performance.md and bench/results/")
    asked = parser.parse_args()
    if min(asked.agents) < MEASURED:
        parser.error(f"at least {MEASURED} agents are measured")
    core, machine = pin(), pages.conditions()
    programs = bundled()
    if asked.redis_server:
        programs = programs._replace(redis_server=asked.redis_server.absolute())
    with ExitStack() as stack:
        hot = [world(stack, programs, agents, 0, asked.messages) for agents in asked.agents]
        cold = [world(stack, programs, MEASURED, rows, asked.messages) for rows in asked.cold]
        tables = _measured(hot, cold, asked.rounds)
        tables["resident"] = list(resident(hot, asked.messages))
        server = hot[0].server
    under = f"{machine}; all on core {core}; {server}; Unix socket, {asked.rounds} rounds of 60 calls."
    tables["scaling"][:0] = [under, ""]
    print("\n\n".join("\n".join(table) for table in tables.values()))
    if asked.write:
        for name, table in tables.items():
            pages.put(pages.PERFORMANCE, name, table)


def _measured(hot: Sequence[World], cold: Sequence[World], rounds: int) -> dict[str, list[str]]:
    made = [
        (each, what, _calls(each)) for worlds, what in ((hot, "agents"), (cold, "cold messages")) for each in worlds
    ]
    operations = list(made[0][2])
    cases = [Case(name, f"{each.name} {what}", of[name]) for name in operations for each, what, of in made]

    def between(words: str) -> None:
        print(words, end="\r", file=sys.stderr)
        for each in (*hot, *cold):
            feel(each.memory, READERS)

    for case in cases:
        for _ in READERS:  # of some the first read asks PostgreSQL
            case.call()
    loop = asyncio.new_event_loop()
    measure(cases, rounds, loop, between)
    loop.close()
    tables = [list(lines(worlds, cases, what)) for worlds, what in ((hot, "agents"), (cold, "cold messages")) if worlds]
    return {"scaling": [line for table in tables for line in (*table, "")][:-1]}


def _calls(each: World) -> dict[str, Any]:
    return calls(each.memory, READERS, WRITERS)


if __name__ == "__main__":
    main()
