"""An agent of the simulation: the plain model of it, which every write that Redis carried out moves on at once.

Whoever cuts a connection knows whether the call was carried out, so the model never has to guess.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID

from tests.tiering.model import Agent, Known, Said

Name = tuple[str, str]


@dataclass
class Life:
    """One agent."""

    id: UUID
    label: str
    model: Agent = field(default_factory=Agent)
    changes: int = 0
    """Counts what was written; a read that nothing was written beside must be exactly what the model says."""
    felt_changes: int = 0
    data: dict[Name, list[tuple[int, Any]]] = field(default_factory=lambda: defaultdict(lambda: [(0, None)]))
    """Of each memory, what it was from which change on (None: nothing)."""
    keyed: set[str] = field(default_factory=set)
    """The calls with a key that were carried out."""
    doubtful: set[Name] = field(default_factory=set)
    """Memories that were over by a clock that has stepped back since: dead or alive, both are right."""
    lost: set[str] = field(default_factory=set)
    """What a failover may have lost, by what it says: there or not, both are right until all is healed."""
    next_number: int = 0

    def number(self) -> int:
        """One that this agent has not used."""
        self.next_number += 1
        return self.next_number

    def wrote(self, *, felt: bool = False) -> None:
        """Something was written."""
        self.changes += 1
        self.felt_changes += felt

    def say(self, at: int, content: str, tokens: int, context: dict[str, float] | None) -> None:
        """A message was appended."""
        self.model.say(Said(at, 0, UUID(int=0), "user", content, None, tokens, context))
        self.wrote()

    def said(self, content: str) -> Said:
        """The message that says that."""
        return next(message for message in self.model.messages if message.content == content)

    def remember(self, name: Name, known: Known | None) -> None:
        """A memory was stored, or deleted."""
        self.wrote()
        if known is None:
            self.model.memories.pop(name, None)
        self.doubtful.discard(name)
        self.data[name].append((self.changes, known and known.data))

    def data_since(self, name: Name, change: int) -> list[Any]:
        """All that a memory was from a change on."""
        versions = self.data[name]
        first = max(n for n, (at, _) in enumerate(versions) if at <= change)
        return [data for _, data in versions[first:]]

    def doubt(self, latest: int, now: int) -> None:
        """The clock, which was at `latest`, stepped back to `now`."""
        for name, known in self.model.memories.items():
            if known.expires is not None and now < known.expires <= latest:
                self.doubtful.add(name)

    def is_certain(self, name: Name) -> bool:
        """Whether the model knows if that memory is there."""
        return name not in self.doubtful
