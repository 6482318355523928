"""An agent of the simulation: the plain model of it, which every write that Redis carried out moves on at once.

Whoever cuts a connection knows whether the call was carried out, so the model never has to guess.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple
from uuid import UUID

from banshee_memory import ConversationMessage, Emotion, EmotionalEventRecord
from banshee_memory.stamps import to_us
from tests.tiering.model import Agent, Happened, Known, Said

Name = tuple[str, str]


class Felt(NamedTuple):
    """What it felt from one change to the next."""

    change: int
    felt: dict[Emotion, tuple[float, int]] | None
    rates: dict[Emotion, float]


class Version(NamedTuple):
    """A memory from one change to the next (None: there was none). `stamp` is 0 where nobody was told one."""

    change: int
    known: Known | None
    stamp: int

    @property
    def data(self) -> Any:
        """What it held."""
        return self.known and self.known.data


@dataclass
class Life:
    """One agent."""

    id: UUID
    label: str
    model: Agent = field(default_factory=Agent)
    epoch: int = 0
    """How often a failover may have lost something of it: who began before may see neither what was nor what is."""
    changes: int = 0
    """Counts what was written; a read that nothing was written beside must be exactly what the model says."""
    states: list[Felt] = field(default_factory=lambda: [Felt(0, None, {})])
    memories: dict[Name, list[Version]] = field(default_factory=lambda: defaultdict(lambda: [Version(0, None, 0)]))
    contexts: dict[str, list[Any]] = field(default_factory=lambda: defaultdict(list))
    """By what a message says: all emotional contexts that it ever had."""
    keyed: set[str] = field(default_factory=set)
    """The calls with a key that were carried out."""
    doubtful: set[Name] = field(default_factory=set)
    """Memories that were over by a clock that has stepped back since: dead or alive, both are right."""
    messages_since: int = 0
    """Since when messages are within retention, by the latest clock that there was; what is older may be gone."""
    events_since: int = 0
    """The same of events."""
    carried: set[str] = field(default_factory=set)
    """What messages say that were seen to be cold: they are counted for ever, whatever becomes of them."""
    carried_events: dict[int, Happened] = field(default_factory=dict)
    """The events that were seen to be cold, by their numbers: they are in the trends for ever."""
    next_number: int = 0

    def number(self) -> int:
        """One that this agent has not used."""
        self.next_number += 1
        return self.next_number

    def wrote(self, *, felt: bool = False) -> None:
        """Something was written."""
        self.changes += 1
        if felt:
            model = self.model
            self.states.append(Felt(self.changes, model.felt and dict(model.felt), dict(model.rates)))

    @property
    def felt_changes(self) -> int:
        """Counts what changed what it feels."""
        return self.states[-1].change

    def begin_again(self) -> None:
        """It was forgotten: from here on it is another agent under the same id."""
        self.epoch += 1
        self.changes += 1
        self.model = Agent()
        self.states = [Felt(self.changes, None, {})]
        for name in self.memories:
            self.memories[name] = [Version(0, None, 0)]
        self.contexts.clear()
        self.keyed.clear()
        self.doubtful.clear()
        self.carried.clear()
        self.carried_events.clear()

    def say(self, at: int, content: str, tokens: int, context: dict[str, float] | None) -> None:
        """A message was appended."""
        self.model.say(Said(at, 0, UUID(int=0), "user", content, None, tokens, context))
        self.contexts[content].append(context)
        self.wrote()
        self.let_go_of_sessions()

    def amend(self, said: Said, context: Any) -> None:
        """A message was given another context."""
        said.context = context
        self.contexts[said.content].append(context)
        self.wrote()

    def said(self, content: str) -> Said:
        """The message that says that."""
        return next(message for message in self.model.messages if message.content == content)

    def remember(self, name: Name, known: Known | None, stamp: int = 0) -> None:
        """A memory was stored, or deleted."""
        self.wrote()
        if known is None:
            self.model.memories.pop(name, None)
        self.doubtful.discard(name)
        self.memories[name].append(Version(self.changes, known and replace(known), stamp))

    def data_since(self, name: Name, change: int) -> list[Any]:
        """All that a memory was from a change on."""
        versions = self.memories[name]
        first = max(n for n, version in enumerate(versions) if version.change <= change)
        return [version.data for version in versions[first:]]

    def doubt(self, latest: int, now: int) -> None:
        """The clock, which was at `latest`, stepped back to `now`."""
        for name, known in self.model.memories.items():
            if known.expires is not None and now < known.expires <= latest:
                self.doubtful.add(name)

    # --- retention ---

    def outlive(self, messages_since: int, events_since: int) -> None:
        """What is older than that may be gone."""
        self.messages_since, self.events_since = messages_since, events_since
        self.let_go_of_sessions()

    def let_go_of_sessions(self) -> None:
        """A session some of which may be gone has totals that nobody knows; nor is it known then what belongs to those
        that are still on."""
        over = {said.session for said in self.model.messages if not self.lasts(said)}
        over |= {happened.session for happened in self.model.events if not self.lasts(happened)}
        if any(stretch.id in over for stretch in self.model.sessions):
            whole = [stretch for stretch in self.model.sessions if stretch.end is not None and stretch.id not in over]
            self.model.sessions[:] = whole

    def lasts(self, record: Said | Happened) -> bool:
        """Whether it is within retention, and must be there."""
        return record.at >= (self.messages_since if isinstance(record, Said) else self.events_since)

    def may_be_dropped(self, record: ConversationMessage | EmotionalEventRecord) -> bool:
        """Whether it was cold, and is beyond retention."""
        if isinstance(record, ConversationMessage):
            return record.content in self.carried and to_us(record.created_at) < self.messages_since
        return number_of(record) in self.carried_events and to_us(record.occurred_at) < self.events_since

    def history(self, read: Collection[str]) -> list[Said]:
        """What must be read, and what of the rest was read: it may be there."""
        return [said for said in self.model.history() if self.lasts(said) or said.content in read]

    def event_history(self, read: Collection[int]) -> list[Happened]:
        """The same of events, by their numbers."""
        every = self.model.event_history()
        return [happened for happened in every if self.lasts(happened) or number_of(happened) in read]

    def messages_ever(self) -> set[str]:
        """All that it may have said: what may be there, and what is counted."""
        return {said.content for said in self.model.messages} | self.carried

    def events_ever(self) -> set[int]:
        """The same of events."""
        return set(map(number_of, self.model.events)) | self.carried_events.keys()

    def totals(self, before: set[str]) -> range:
        """How many messages it may be said to have had, by who began to ask when it had said that."""
        lasting = {said.content for said in self.model.messages if self.lasts(said)}
        return range(len((lasting | self.carried) & before), len(self.messages_ever()) + 1)

    def total_events(self, before: set[int]) -> range:
        """The same of events, which the trends count."""
        lasting = {number_of(happened) for happened in self.model.events if self.lasts(happened)}
        return range(len((lasting | self.carried_events.keys()) & before), len(self.events_ever()) + 1)

    def is_certain(self, name: Name) -> bool:
        """Whether the model knows if that memory is there."""
        return name not in self.doubtful


def number_of(event: Any) -> int:
    """What tells events apart."""
    return int(event.event.data["n"])
