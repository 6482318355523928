"""Agents to measure with. Few, and as many for everybody: how long a cache remembers is not what is compared."""

from __future__ import annotations

from uuid import UUID

from banshee_memory import MemoryPlugin
from banshee_memory.cli.workload import feel, settle

AGENTS = 40


def _agents(first: int) -> list[UUID]:
    return [UUID(int=(first << 124) + 0x4000_8000_0000_0000_0000 + n * 7919) for n in range(AGENTS)]


READERS, WRITERS, SLEEPERS = _agents(0xA), _agents(0xB), _agents(0xC)
"""Who is only read, who is written to, and whose messages are not in Redis."""


def begin(memory: MemoryPlugin) -> None:
    """Everybody, with all of it in PostgreSQL as well."""
    settle(memory, [*READERS, *WRITERS, *SLEEPERS])
    memory.flush()
    feel(memory, READERS)
