"""Poison of every kind in one flush: each is a dead letter with its reason, and the records around it are cold."""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator
from hashlib import sha256
from typing import NamedTuple
from uuid import UUID, uuid4

import msgspec
import pytest

from banshee_memory import DeadLetter, Emotion, EmotionalState
from banshee_memory.hot.keys import AgentKeys
from banshee_memory.records import FlushReport
from banshee_memory.settings import Settings
from tests.hot.raw import Server
from tests.own_servers import own_database, own_redis
from tests.tiering.lives import HAPPENED, STEADY
from tests.tiers import Tiers

SETTINGS = Settings(shards=4, message_retention_days=None, event_retention_days=None)
NONCE = b"abcdefgh"
Poison = Callable[[Server, AgentKeys], object]


class Kind(NamedTuple):
    """A kind of poison: what a foreign client does, what the letter says that it was, and why it is one."""

    write: Poison
    kind: str | None
    reason: str


def message(body: bytes, at: str = "") -> Poison:
    return lambda server, keys: server.fcall(
        "append_messages", [keys.messages, keys.log, keys.state], keys.agent.bytes, at, "", body
    )


def said(content: str, role: str = "user", metadata: object = None, tokens: int | None = None) -> bytes:
    return msgspec.msgpack.encode([NONCE, role, content, metadata, None, tokens])


def event(body: bytes) -> Poison:
    return lambda server, keys: server.fcall(
        "save_event", [keys.events, keys.log, keys.state, keys.feed], keys.agent.bytes, "record", "", body
    )


def happened(data: object, name: str = "custom") -> bytes:
    return msgspec.msgpack.encode([NONCE, {"type": name, "event_type": "x", "data": data}])


def memory(body: bytes, member: str = "fact:poison") -> Poison:
    return lambda server, keys: server.fcall(
        "store_memory", [keys.memory(member), keys.memories, keys.log], keys.agent.bytes, member, "", body, "blind"
    )


def known(data: object, importance: object = 0.5) -> bytes:
    return msgspec.msgpack.encode([data, importance, []])


def logged(head: Callable[[AgentKeys], bytes], payload: bytes = b"") -> Poison:
    """What goes past the functions, straight into the log."""
    return lambda server, keys: server.command("XADD", keys.log, "*", "k", head(keys), "p", payload)


def state(server: Server, keys: AgentKeys) -> None:
    """A state whose hash somebody wrote to."""
    server.command("HSET", keys.state, "joy", b"abc")
    server.command("XADD", keys.log, "*", "k", b"S" + keys.agent.bytes, "p", "")


def deep(levels: int) -> bytes:
    return b"\x94" + msgspec.msgpack.encode(NONCE) + b"\xa4user\xa1x" + b"\x91" * levels + b"\xc0"


LONG = "".join(sha256(bytes([n])).hexdigest() for n in range(200))
"""12,800 characters that cannot be made shorter."""
FAR = b"\x01" + struct.pack(">d", 1e18) + b"\0\0" + said("when?")
NEVER = b"\x01" + struct.pack(">d", float("nan")) + b"\0\0" + said("when?")

KINDS = {
    "a body that is no MessagePack": Kind(message(b"\xc1junk"), "message", "message:"),
    "a body cut short": Kind(message(said("hello")[:-9]), "message", "message:"),
    "an unknown kind": Kind(logged(lambda keys: b"Z" + keys.agent.bytes), "Z", "kind 'Z' is unknown"),
    "an agent that is none": Kind(logged(lambda _: b"Mshort"), "message", "16"),
    "an entry without our fields": Kind(
        lambda server, keys: server.command("XADD", keys.log, "*", "whose", "not ours"), None, "not in tuple"
    ),
    "a date far off": Kind(logged(lambda keys: b"M" + keys.agent.bytes, FAR), "message", "message:"),
    "a date that is none": Kind(logged(lambda keys: b"M" + keys.agent.bytes, NEVER), "message", "NaN"),
    "NUL in a message": Kind(message(said("a\0b")), "message", "NUL"),
    "NUL in metadata": Kind(message(said("x", metadata={"a": "b\0c"})), "message", "22P05"),
    "text that is no UTF-8": Kind(message(said("abc").replace(b"abc", b"a\xffc")), "message", "UTF-8"),
    "JSON too deep to be read": Kind(message(deep(20_000)), "message", "message:"),
    "an unknown role": Kind(message(said("x", role="boss")), "message", "role"),
    "negative tokens": Kind(message(said("x", tokens=-1)), "message", "tokens"),
    "tokens without end": Kind(message(said("x", tokens=2**63)), "message", "tokens"),
    "a key too long to be indexed": Kind(memory(known("x"), f"fact:{LONG}"), "memory", "54000"),
    "an event that is no MessagePack": Kind(event(b"\xc1"), "event", "event:"),
    "an event of no known type": Kind(event(happened({}, name="miracle")), "event", "event:"),
    "NUL in an event": Kind(event(happened({"a": "\0"})), "event", "22P05"),
    "a state with a broken field": Kind(state, "state", "state:"),
    "a memory that is no MessagePack": Kind(memory(b"\xc1"), "memory", "memory:"),
    "NUL in a memory": Kind(memory(known({"a": "\0"})), "memory", "22P05"),
    "an importance out of range": Kind(memory(known("x", importance=7.0)), "memory", "importance"),
    "an importance that is none": Kind(memory(known("x", importance=float("nan"))), "memory", "importance"),
    "a memory that is no string": Kind(
        lambda server, keys: (
            server.command("SADD", keys.memory("fact:set"), "x"),
            server.command("XADD", keys.log, "*", "k", b"V" + keys.agent.bytes, "p", "fact:set"),
        ),
        "memory",
        "WRONGTYPE",
    ),
    "an amendment that is none": Kind(logged(lambda keys: b"A" + keys.agent.bytes, b"\xc1"), "amendment", ""),
}


class Flushed(NamedTuple):
    """What one flush of all of it did."""

    report: FlushReport
    agents: dict[str, UUID]
    letters: list[DeadLetter]


@pytest.fixture(scope="module")
def tiers(redis_url: str, database_url: str) -> Iterator[Tiers]:
    with own_redis(like=redis_url) as redis, own_database(database_url, SETTINGS) as database:
        client = Tiers(redis, database, SETTINGS)
        yield client
        client.close()


@pytest.fixture(scope="module")
def flushed(tiers: Tiers) -> Flushed:
    server, agents = Server(tiers.hot), {name: uuid4() for name in KINDS}
    for name, agent in agents.items():
        if KINDS[name].kind != "state":
            tiers.emotions.save_state(agent, EmotionalState({Emotion.JOY: 0.5}, dict(STEADY)))
        tiers.conversations.save_message(agent, "user", "before")
        tiers.memories.store_memory(agent, "fact", "good", "known")
        tiers.emotions.save_event(agent, HAPPENED, {}, mode="record")
    for name, agent in agents.items():
        KINDS[name].write(server, tiers.keys(agent))
    for agent in agents.values():
        tiers.conversations.save_message(agent, "user", "after")
    return Flushed(tiers.flush(), agents, tiers.dead_letters.find())


def test_all_of_it_is_counted(tiers: Tiers, flushed: Flushed) -> None:
    assert flushed.report.poisoned == len(flushed.letters) == len(KINDS)
    assert flushed.report.messages == 2 * len(KINDS)
    assert not tiers.flush().records


@pytest.mark.parametrize("name", KINDS)
def test_it_is_a_dead_letter_and_what_is_around_it_is_cold(tiers: Tiers, flushed: Flushed, name: str) -> None:
    agent, expected = flushed.agents[name], KINDS[name]
    letter = letter_of(flushed, name)
    assert letter.kind == expected.kind
    assert expected.reason.casefold() in letter.reason.casefold(), "decoders write it in one case or the other"
    assert letter.reason
    tiers.drop(agent)
    assert [m.content for m in tiers.conversations.get_history(agent)] == ["before", "after"]
    assert tiers.conversations.get_conversation_stats(agent).total_messages == 2
    assert len(tiers.emotions.get_event_history(agent)) == 1
    assert tiers.memories.retrieve_memory(agent, "fact", "good") == "known"
    if expected.kind != "state":
        felt = tiers.emotions.load_state(agent)
        assert felt is not None
        assert felt.emotions == {Emotion.JOY: 0.5}


def letter_of(flushed: Flushed, name: str) -> DeadLetter:
    agent = flushed.agents[name]
    found = [letter for letter in flushed.letters if letter.agent_id == agent]
    if not found:  # those that do not say whose they are
        found = [x for x in flushed.letters if x.agent_id is None and x.kind == KINDS[name].kind]
    (letter,) = found
    return letter


def test_the_letters_hold_no_content(flushed: Flushed) -> None:
    told = msgspec.json.encode(flushed.letters)
    assert b"junk" not in told
    assert LONG[:64].encode() not in told
