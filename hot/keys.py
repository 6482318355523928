"""The names of all keys. One shard, one hash tag: all keys of an agent are in one slot."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from functools import cached_property
from typing import NamedTuple
from uuid import UUID

PREFIX = "banshee:"
STORE = PREFIX + "store"
"""A hash of what was fixed when the store was first used."""
BARRIER = PREFIX + "barrier"
"""Written before each wait for the disk or for replicas; holds nothing."""


def shard_of(agent_id: UUID, shards: int) -> int:
    """The shard of an agent: the last four bytes of its id as a big-endian number, modulo the number of shards."""
    return (agent_id.int & 0xFFFFFFFF) % shards


def shard_in(key: str) -> int:
    """The shard that a key belongs to."""
    return int(key[key.index("{") + 1 : key.index("}")])


class ShardKeys(NamedTuple):
    """What a shard has once."""

    shard: int
    log: str
    dead: str
    accesses: str
    idem: str
    wanted: str
    feed: str
    forgotten: str
    parked: str
    stats: str


def shard_keys(shard: int) -> ShardKeys:
    """The keys of a shard."""
    tag = f"{PREFIX}{{{shard}}}:"
    names = ("log", "dead", "accesses", "idem", "wanted", "feed", "forgotten", "parked", "stats")
    return ShardKeys(shard, *(tag + name for name in names))


_OF_AGENT = re.compile(rf"{PREFIX}\{{(\d+)\}}:(state|messages|events|memory|memories):([0-9a-f-]{{36}})(?::|$)")


class OwnedKey(NamedTuple):
    """A key of an agent: its kind (state, messages, events, memory; memories: the index), its shard and its agent."""

    name: str
    kind: str
    shard: int
    agent: UUID


def owned_key(name: bytes) -> OwnedKey | None:
    """What a key's name says of it; None: it is no agent's."""
    text = name.decode(errors="surrogateescape")
    found = _OF_AGENT.match(text)
    return OwnedKey(text, found[2], int(found[1]), UUID(found[3])) if found else None


@dataclass(frozen=True)
class AgentKeys:
    """What an agent has once; its memories are `memory(member)`. Kept by who calls again: a name is spelled once."""

    agent: UUID
    shard: int
    tag: str
    name: str
    packed: dict[str, bytes] = field(init=False, default_factory=dict, compare=False, repr=False)
    """Of the hottest calls what is the same at each, as it goes over the connection."""

    @cached_property
    def log(self) -> str:
        """The stream of its shard."""
        return self.tag + "log"

    @cached_property
    def accesses(self) -> str:
        """The set of memories of its shard that were read and not flushed since."""
        return self.tag + "accesses"

    @cached_property
    def idem(self) -> str:
        """The hash of its shard's idempotency keys."""
        return self.tag + "idem"

    @cached_property
    def feed(self) -> str:
        """The stream of its shard's latest events."""
        return self.tag + "feed"

    @cached_property
    def wanted(self) -> str:
        """The set of its shard's agents that foreign clients want rehydrated."""
        return self.tag + "wanted"

    @cached_property
    def forgotten(self) -> str:
        """The hash of its shard's agents that were forgotten lately."""
        return self.tag + "forgotten"

    @cached_property
    def state(self) -> str:
        """The hash of what it feels."""
        return f"{self.tag}state:{self.name}"

    @cached_property
    def messages(self) -> str:
        """The list of its latest messages."""
        return f"{self.tag}messages:{self.name}"

    @cached_property
    def events(self) -> str:
        """The list of its latest emotional events."""
        return f"{self.tag}events:{self.name}"

    @cached_property
    def memories(self) -> str:
        """The index of its resident memories."""
        return f"{self.tag}memories:{self.name}"

    def memory(self, member: str) -> str:
        """One memory, by its `<type>:<key>`."""
        return f"{self.tag}memory:{self.name}:{member}"


def agent_keys(agent_id: UUID, shards: int) -> AgentKeys:
    """The keys of an agent."""
    shard = shard_of(agent_id, shards)
    return AgentKeys(agent_id, shard, f"{PREFIX}{{{shard}}}:", str(agent_id))


def member_of(memory_type: str, key: str) -> str:
    """A memory's name within its agent. Types hold no colon, so it can be taken apart again."""
    return f"{memory_type}:{key}"


def member_parts(member: str) -> tuple[str, str]:
    """`(memory_type, key)` of a member."""
    memory_type, _, key = member.partition(":")
    return memory_type, key
