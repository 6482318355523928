"""Dead letters that are retried or dropped: each once, in its place, as it was."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import datetime
from uuid import UUID, uuid4

import psycopg
import pytest
from msgspec import structs

from banshee_memory import (
    CustomEvent,
    DeadLetter,
    Emotion,
    EmotionalEventRecord,
    EmotionalState,
    HotStoreFull,
    InvalidInput,
    NewMessage,
)
from banshee_memory.hot import calls
from banshee_memory.hot.keys import shard_keys
from banshee_memory.settings import Settings
from banshee_memory.stamps import from_us
from tests.hot.raw import Server
from tests.own_servers import own_database, own_redis
from tests.tiering.lives import HAPPENED, STEADY
from tests.tiers import Tiers

SETTINGS = Settings(shards=2, message_cap=50, message_retention_days=None, event_retention_days=None)
REFUSED = {
    "conversation_messages": "content <> 'refused'",
    "emotional_events": "event_type <> 'refused'",
    "memory_records": "data <> '\"refused\"'",
    "emotional_states": "stamp < 0",
}
"""What PostgreSQL does not take, until it does."""


@pytest.fixture(scope="module")
def urls(redis_url: str, database_url: str) -> Iterator[tuple[str, str]]:
    with own_redis(like=redis_url) as redis, own_database(database_url, SETTINGS) as database:
        yield redis, database


@pytest.fixture(scope="module")
def tiers(urls: tuple[str, str]) -> Iterator[Tiers]:
    client = Tiers(*urls, SETTINGS)
    yield client
    client.close()


@pytest.fixture
def server(tiers: Tiers) -> Iterator[Server]:
    server = Server(tiers.hot)
    yield server
    tiers.flush()
    for shard in range(SETTINGS.shards):
        server.command("DEL", shard_keys(shard).dead)


@contextmanager
def refused(tiers: Tiers, urls: tuple[str, str], table: str, poisoned: int = 1) -> Iterator[None]:
    """What is written in the block is flushed while PostgreSQL refuses some of it; afterwards it would take it."""
    with psycopg.connect(urls[1], autocommit=True) as database:
        tiers.flush()
        database.execute(f"ALTER TABLE {table} ADD CONSTRAINT picky CHECK ({REFUSED[table]}) NOT VALID")
        try:
            yield
            assert tiers.flush().poisoned == poisoned
        finally:
            database.execute(f"ALTER TABLE {table} DROP CONSTRAINT picky")


def said(tiers: Tiers, agent: UUID) -> list[tuple[UUID, str, datetime]]:
    return [(m.id, m.content, m.created_at) for m in tiers.conversations.get_history(agent)]


def said_later(tiers: Tiers, agent: UUID, text: str) -> UUID:
    """A message in a millisecond of its own: within one, what is retried comes last."""
    latest = max((at for _, _, at in said(tiers, agent)), default=None)
    while latest is not None and from_us(tiers.hot.run(calls.now()) // 1_000 * 1_000) <= latest:
        pass
    return tiers.conversations.save_message(agent, "user", text)


@pytest.mark.parametrize("evicted", [False, True], ids=["resident", "evicted"])
def test_messages_are_where_they_were(
    tiers: Tiers, server: Server, urls: tuple[str, str], agent: UUID, evicted: bool
) -> None:
    texts = ["one", "refused", "two", "refused", "three"]
    with refused(tiers, urls, "conversation_messages", poisoned=2):
        ids = [said_later(tiers, agent, text) for text in texts]
        whole = said(tiers, agent)
    assert [content for _, content, _ in said(tiers, agent)] == ["one", "two", "three"]
    if evicted:
        tiers.drop(agent)
    letters = tiers.dead_letters.find(agent)
    assert tiers.dead_letters.retry(letters[::-1]) == 2
    assert tiers.dead_letters.retry(letters) == 0
    assert said(tiers, agent) == whole
    assert tiers.conversations.get_conversation_stats(agent).total_messages == 5
    assert tiers.flush().messages == 2
    assert said(tiers, agent) == whole
    tiers.drop(agent)
    assert said(tiers, agent) == whole
    assert [row[0] for row in whole] == ids
    assert tiers.conversations.get_conversation_stats(agent).total_messages == 5
    assert tiers.dead_letters.find() == []


def test_many_keep_their_ids_however_close(tiers: Tiers, server: Server, urls: tuple[str, str], agent: UUID) -> None:
    with refused(tiers, urls, "conversation_messages", poisoned=200):
        ids = tiers.conversations.save_messages(agent, [NewMessage(role="user", content="refused")] * 200)
    assert tiers.dead_letters.retry(tiers.dead_letters.find(limit=1_000)[::-1]) == 200
    tiers.evict(agent)
    assert [m.id for m in tiers.conversations.get_history(agent, 500)] == ids


def test_a_message_with_a_time_of_its_own(tiers: Tiers, server: Server, urls: tuple[str, str], agent: UUID) -> None:
    with refused(tiers, urls, "conversation_messages"):
        tiers.conversations.save_message(agent, "user", "now")
        at = tiers.conversations.get_history(agent)[0].created_at.replace(year=2020)
        tiers.conversations.save_messages(agent, [NewMessage(role="user", content="refused", created_at=at)])
        whole = said(tiers, agent)
    tiers.dead_letters.retry(tiers.dead_letters.find(agent))
    assert said(tiers, agent) == whole
    tiers.evict(agent)
    assert said(tiers, agent) == whole
    assert whole[0][2] == at


def told(tiers: Tiers, agent: UUID) -> list[EmotionalEventRecord]:
    """But for when it was put in, which a retry does anew."""
    events = tiers.emotions.get_event_history(agent)
    return [structs.replace(event, created_at=event.occurred_at) for event in events]


def test_an_event(tiers: Tiers, server: Server, urls: tuple[str, str], agent: UUID) -> None:
    tiers.emotions.save_state(agent, EmotionalState({Emotion.JOY: 0.25}, dict(STEADY)))
    with refused(tiers, urls, "emotional_events"):
        tiers.emotions.save_event(agent, CustomEvent(event_type="refused"), {Emotion.HOPE: 0.5})
        said_later(tiers, agent, "a millisecond between")
        said_later(tiers, agent, "the two")
        tiers.emotions.save_event(agent, HAPPENED, {Emotion.LOVE: 0.5})
        whole = told(tiers, agent)
    assert len(tiers.emotions.get_event_history(agent)) == 1
    assert tiers.dead_letters.retry(tiers.dead_letters.find(agent)) == 1
    assert told(tiers, agent) == whole
    tiers.evict(agent)
    assert told(tiers, agent) == whole
    felt = tiers.emotions.load_state(agent)
    assert felt is not None
    assert felt.emotions == {Emotion.JOY: 0.25, Emotion.HOPE: 0.5, Emotion.LOVE: 0.5}


def test_a_memory_and_a_state(tiers: Tiers, server: Server, urls: tuple[str, str], agent: UUID) -> None:
    with refused(tiers, urls, "memory_records"):
        tiers.memories.store_memory(agent, "fact", "x", "refused")
    with refused(tiers, urls, "emotional_states"):
        tiers.emotions.save_state(agent, EmotionalState({Emotion.JOY: 0.25}, dict(STEADY)))
    assert tiers.evict(agent).kept >= 2
    letters = tiers.dead_letters.find(agent)
    assert [letter.kind for letter in letters] == ["memory", "state"]
    assert tiers.dead_letters.retry([letter.id for letter in letters]) == 2
    assert tiers.evict(agent).kept == 0
    assert tiers.memories.retrieve_memory(agent, "fact", "x") == "refused"
    felt = tiers.emotions.load_state(agent)
    assert felt is not None
    assert felt.emotions == {Emotion.JOY: 0.25}


def test_what_still_cannot_be_stored_is_a_letter_again(
    tiers: Tiers, server: Server, urls: tuple[str, str], agent: UUID
) -> None:
    with refused(tiers, urls, "conversation_messages"):
        tiers.conversations.save_message(agent, "user", "refused")
    (first,) = tiers.dead_letters.find(agent)
    with refused(tiers, urls, "conversation_messages", poisoned=0):
        assert tiers.dead_letters.retry([first]) == 1
        assert tiers.flush().poisoned == 1
    (second,) = tiers.dead_letters.find(agent)
    assert second.id != first.id
    assert tiers.conversations.get_history(agent) == []
    tiers.dead_letters.retry([second])
    tiers.evict(agent)
    assert [m.content for m in tiers.conversations.get_history(agent)] == ["refused"]


def test_it_is_retried_once_whoever_tries(tiers: Tiers, server: Server, urls: tuple[str, str], agent: UUID) -> None:
    with refused(tiers, urls, "conversation_messages", poisoned=20):
        tiers.conversations.save_messages(agent, [NewMessage(role="user", content="refused")] * 20)
    letters = tiers.dead_letters.find(agent)
    with ThreadPoolExecutor(4) as pool:
        assert sum(pool.map(tiers.dead_letters.retry, [letters] * 4)) == 20
    assert tiers.conversations.get_conversation_stats(agent).total_messages == 20


def dead(tiers: Tiers, urls: tuple[str, str], agent: UUID) -> DeadLetter:
    with refused(tiers, urls, "conversation_messages"):
        tiers.conversations.save_message(agent, "user", "refused")
    (letter,) = tiers.dead_letters.find(agent)
    return letter


def test_a_full_server_keeps_the_letter(tiers: Tiers, server: Server, urls: tuple[str, str], agent: UUID) -> None:
    letter = dead(tiers, urls, agent)
    server.command("CONFIG", "SET", "maxmemory-policy", "noeviction", "maxmemory", "1")
    try:
        with pytest.raises(HotStoreFull):
            tiers.dead_letters.retry([letter])
        assert tiers.dead_letters.find(agent) == [letter]
        assert tiers.dead_letters.drop([letter]) == 1
    finally:
        server.command("CONFIG", "SET", "maxmemory", "0")


def test_a_list_that_somebody_broke_keeps_the_letter(
    tiers: Tiers, server: Server, urls: tuple[str, str], agent: UUID
) -> None:
    letter = dead(tiers, urls, agent)
    messages = tiers.keys(agent).messages
    server.command("DEL", messages)
    server.command("SADD", messages, "x")
    assert tiers.dead_letters.retry([letter]) == 0
    assert tiers.dead_letters.find(agent) == [letter]
    server.command("DEL", messages)
    assert tiers.dead_letters.retry([letter]) == 1


def test_a_letter_that_is_dropped_is_gone(tiers: Tiers, server: Server, urls: tuple[str, str], agent: UUID) -> None:
    letter = dead(tiers, urls, agent)
    assert tiers.dead_letters.drop([letter, letter.id]) == 1
    assert tiers.dead_letters.drop([letter]) == tiers.dead_letters.retry([letter]) == 0
    assert tiers.conversations.get_history(agent) == []


def test_with_its_letter_goes_a_value_that_would_stay_for_ever(
    tiers: Tiers, server: Server, urls: tuple[str, str], agent: UUID
) -> None:
    tiers.memories.store_memory(agent, "fact", "x", "taken")
    tiers.emotions.save_state(agent, EmotionalState({Emotion.JOY: 0.25}, dict(STEADY)))
    with refused(tiers, urls, "memory_records"):
        tiers.memories.store_memory(agent, "fact", "x", "refused")
    with refused(tiers, urls, "emotional_states"):
        tiers.emotions.save_state(agent, EmotionalState({Emotion.JOY: 0.75}, dict(STEADY)))
    assert tiers.dead_letters.drop(tiers.dead_letters.find(agent)) == 2
    assert tiers.memories.retrieve_memory(agent, "fact", "x") == "taken"
    felt = tiers.emotions.load_state(agent)
    assert felt is not None
    assert felt.emotions == {Emotion.JOY: 0.25}
    assert tiers.evict(agent).kept == 0


def test_a_value_that_was_written_again_stays(tiers: Tiers, server: Server, urls: tuple[str, str], agent: UUID) -> None:
    with refused(tiers, urls, "memory_records"):
        tiers.memories.store_memory(agent, "fact", "x", "refused")
    with refused(tiers, urls, "emotional_states"):
        tiers.emotions.save_state(agent, EmotionalState({Emotion.JOY: 0.75}, dict(STEADY)))
    tiers.memories.store_memory(agent, "fact", "x", "newer")
    tiers.emotions.save_state(agent, EmotionalState({Emotion.JOY: 0.5}, dict(STEADY)))
    assert tiers.dead_letters.drop(tiers.dead_letters.find(agent)) == 2
    assert tiers.memories.retrieve_memory(agent, "fact", "x") == "newer"
    tiers.evict(agent)
    assert tiers.memories.retrieve_memory(agent, "fact", "x") == "newer"
    felt = tiers.emotions.load_state(agent)
    assert felt is not None
    assert felt.emotions == {Emotion.JOY: 0.5}


def test_an_amendment_and_somebody_else_s_entry(tiers: Tiers, server: Server, agent: UUID) -> None:
    keys = tiers.keys(agent)
    server.command("XADD", keys.log, "*", "k", b"A" + agent.bytes, "p", b"\xc1")
    server.command("XADD", keys.log, "*", "whose", "not ours")
    server.command("XADD", keys.log, "*", "k", b"M" + agent.bytes, "p", b"\x01")
    assert tiers.flush().poisoned == 3
    amendment, foreign, stub = tiers.dead_letters.find()
    assert (amendment.kind, foreign.kind, stub.kind) == ("amendment", None, "message")
    assert tiers.dead_letters.retry([amendment]) == 0
    assert tiers.dead_letters.retry([foreign, stub]) == 2
    assert tiers.flush().poisoned == 2
    assert tiers.dead_letters.drop(tiers.dead_letters.find()) == 3


def test_they_are_found_by_agent_by_shard_and_in_order(tiers: Tiers, server: Server) -> None:
    agents = [UUID(int=uuid4().int & ~0xFF | shard) for shard in (0, 1, 0)]
    for agent in agents:
        server.command("XADD", tiers.keys(agent).log, "*", "k", b"Z" + agent.bytes, "p", "")
        tiers.flush()
    find = tiers.dead_letters.find
    assert [letter.agent_id for letter in find()] == agents
    assert [letter.agent_id for letter in find(limit=2)] == agents[:2]
    assert [letter.agent_id for letter in find(shard=0)] == [agents[0], agents[2]]
    assert [letter.agent_id for letter in find(agents[2])] == [agents[2]]
    assert find(agents[1], shard=0) == []
    for letter in find():
        assert letter.at is not None
        assert letter.at <= letter.buried_at


@pytest.mark.parametrize("name", ["", "1", "1:", "2:1-1", "0:1", "0:-", 7, "0:1-1 ", "٠:1-1"])
def test_a_name_that_is_none_is_refused(tiers: Tiers, name: str) -> None:
    for act in (tiers.dead_letters.retry, tiers.dead_letters.drop):
        with pytest.raises(InvalidInput, match="no id of a dead letter"):
            act([name])


def test_a_retry_in_a_lost_log_is_done_after_seeding(
    tiers: Tiers, server: Server, urls: tuple[str, str], agent: UUID
) -> None:
    letter = dead(tiers, urls, agent)
    server.command("DEL", tiers.keys(agent).log)
    assert tiers.dead_letters.retry([letter]) == 1
    tiers.evict(agent)
    assert [m.content for m in tiers.conversations.get_history(agent)] == ["refused"]
