"""What comes of the things around a dead letter: the state that it changed, its place among the accesses, its cost."""

from __future__ import annotations

from typing import Any
from uuid import UUID

import pytest

from banshee_memory import Emotion, EmotionalState
from banshee_memory.cold import reads
from banshee_memory.cold.drain import Batch, Written
from banshee_memory.cold.drain import Drain as ColdDrain
from banshee_memory.hot import wire
from banshee_memory.hot.keys import shard_keys
from tests.hot.raw import Server
from tests.tiering.lives import STEADY
from tests.tiers import Tiers

JUNK = b"\xc1junk"


@pytest.fixture
def server(tiers: Tiers) -> Server:
    tiers.flush()
    for shard in range(tiers.settings.shards):
        Server(tiers.hot).command("DEL", shard_keys(shard).dead)
    return Server(tiers.hot)


def test_the_state_that_an_unreadable_event_changed_is_cold(tiers: Tiers, server: Server, agent: UUID) -> None:
    keys = tiers.keys(agent)
    tiers.emotions.save_state(agent, EmotionalState({Emotion.JOY: 0.5}, dict(STEADY)))
    tiers.flush(agent)
    at = [keys.events, keys.log, keys.state, keys.feed]
    server.fcall("save_event", at, agent.bytes, "set", "", JUNK, "love", "0.75")
    assert server.ttl(keys.state) < 0

    report = tiers.flush(agent)

    assert (report.poisoned, report.states, report.events) == (1, 1, 0)
    cold = tiers.cold.fetch(reads.state_of(agent))
    assert cold is not None
    assert {emotion: felt.intensity for emotion, felt in cold.felt.items()} == {Emotion.JOY: 0.5, Emotion.LOVE: 0.75}
    assert server.ttl(keys.state) > 0
    assert tiers.emotions.get_event_history(agent) == []


def test_a_memory_that_cannot_be_carried_is_not_among_the_accesses_for_ever(
    tiers: Tiers, server: Server, agent: UUID
) -> None:
    keys = tiers.keys(agent)
    memory = keys.memory("fact:x")
    server.fcall("store_memory", [memory, keys.memories, keys.log], agent.bytes, "fact:x", "", JUNK, "blind")
    assert tiers.flush(agent).poisoned == 1
    server.fcall("retrieve_memory", [memory, keys.memories, keys.accesses], agent.bytes, "fact:x")
    assert server.command("SCARD", keys.accesses) == 1
    tiers.flush(agent)
    assert server.command("SCARD", keys.accesses) == 0


def test_negative_tokens_are_found_out_before_postgresql_is_asked(
    tiers: Tiers, server: Server, agent: UUID, monkeypatch: pytest.MonkeyPatch
) -> None:
    keys, written = tiers.keys(agent), []
    write = ColdDrain.write

    def counted(drain: ColdDrain, batch: Batch) -> Written:
        written.append(len(batch))
        return write(drain, batch)

    monkeypatch.setattr(ColdDrain, "write", counted)
    for tokens in (3, -1, 4):
        body = wire.message_body(b"abcdefgh", "user", "hello", None, None, tokens, None)
        words: list[Any] = [agent.bytes, "", "", body]
        server.fcall("append_messages", [keys.messages, keys.log, keys.state], *words)
    report = tiers.flush(agent)
    assert (report.messages, report.poisoned) == (2, 1)
    assert written == [2]
    assert tiers.conversations.get_conversation_stats(agent).total_tokens == 7
