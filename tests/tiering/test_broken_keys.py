"""One record that cannot be, or one key that somebody broke, stops the flush of no other record and no other shard."""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator
from uuid import UUID, uuid4

import pytest

from banshee_memory import ConfigurationError
from banshee_memory.hot import flushing
from banshee_memory.hot.keys import AgentKeys, shard_keys
from banshee_memory.tiering.doctor import examine
from banshee_memory.tiering.drain import Drain
from banshee_memory.tiering.report import backlog
from tests.hot.raw import Server
from tests.own_servers import CLOCK, own_database, own_redis
from tests.tiering.conftest import SETTINGS
from tests.tiers import Tiers

SHARDS = range(SETTINGS.shards)
BROKEN = 1
NESTED = b"\x94\xc4\x08abcdefgh\xa4user\xa2hi" + b"\x91" * 50_000 + b"\xc0"
MISREAD = b"fact:\xff\xfe"


@pytest.fixture(scope="module")
def database(database_url: str) -> Iterator[str]:
    with own_database(database_url, SETTINGS) as url:
        yield url


@pytest.fixture
def tiers(redis_url: str, database: str) -> Iterator[Tiers]:
    with own_redis(like=redis_url) as redis:
        client = Tiers(redis, database, SETTINGS, clock=CLOCK)
        yield client
        client.close()


@pytest.fixture
def server(tiers: Tiers) -> Server:
    return Server(tiers.hot)


def agent_in(shard: int) -> UUID:
    return UUID(int=uuid4().int >> 32 << 32 | shard)


def carried(tiers: Tiers, agent: UUID) -> int:
    """How many of its messages are cold."""
    tiers.flush(agent)
    with tiers.cold.connection() as connection:
        counted = "SELECT count(*) FROM conversation_messages WHERE agent_id = %s"
        return int(connection.execute(counted, (agent,)).fetchall()[0][0])


def nested_message(server: Server, keys: AgentKeys) -> None:
    server.fcall("append_messages", [keys.messages, keys.log, keys.state], keys.agent.bytes, "", "", NESTED)


def endless_state(server: Server, keys: AgentKeys) -> None:
    server.fcall("save_state", [keys.state, keys.log], keys.agent.bytes, "", "joy", "0.5")
    server.command("HSET", keys.state, "joy", struct.pack(">dd", 0.5, float("inf")))


def many_fields(server: Server, keys: AgentKeys) -> None:
    server.command("XADD", keys.log, "*", *(str(n) for n in range(20_000)))


def misread_mention(server: Server, keys: AgentKeys) -> None:
    server.command("XADD", keys.log, "*", "k", b"V" + keys.agent.bytes, "p", MISREAD)


def state_of_another_type(server: Server, keys: AgentKeys) -> None:
    server.fcall("save_state", [keys.state, keys.log], keys.agent.bytes, "", "joy", "0.5")
    server.command("SET", keys.state, "somebody else's")


@pytest.mark.parametrize("break_", [nested_message, endless_state, many_fields, misread_mention, state_of_another_type])
def test_a_record_that_cannot_be_becomes_a_dead_letter(
    tiers: Tiers, server: Server, break_: Callable[[Server, AgentKeys], None]
) -> None:
    before, after, other = (agent_in(shard) for shard in (BROKEN, BROKEN, 2))
    bad = tiers.keys(agent_in(BROKEN))
    tiers.conversations.save_message(before, "user", "hello")
    break_(server, bad)
    for agent in (after, other):
        tiers.conversations.save_message(agent, "user", "hello")

    report = Drain(SETTINGS, tiers.hot, tiers.cold).sweep()

    assert (report.messages, report.poisoned) == (3, 1)
    assert server.command("XLEN", bad.log) == 0
    assert [letter.shard for letter in tiers.dead_letters.find(limit=5)] == [BROKEN]


@pytest.mark.parametrize("junk", [MISREAD, b"no agent"], ids=["no text", "no agent"])
def test_an_access_of_what_has_no_name_is_forgotten(tiers: Tiers, server: Server, junk: bytes) -> None:
    keys, other = tiers.keys(agent_in(BROKEN)), agent_in(2)
    server.command("SADD", keys.accesses, keys.agent.bytes + junk if junk == MISREAD else junk)
    tiers.conversations.save_message(other, "user", "hello")
    assert tiers.flush().messages == 1
    assert server.command("SCARD", keys.accesses) == 0


KEYS: dict[str, Callable[[AgentKeys], str]] = {
    "log": lambda keys: keys.log,
    "accesses": lambda keys: keys.accesses,
    "dead": lambda keys: shard_keys(keys.shard).dead,
}


@pytest.mark.parametrize("name", KEYS)
def test_a_key_of_another_type_is_told_and_stops_no_other_shard(tiers: Tiers, server: Server, name: str) -> None:
    key = KEYS[name](tiers.keys(agent_in(BROKEN)))
    server.command("SET", key, "somebody else's")
    innocent = [agent_in(shard) for shard in SHARDS if shard != BROKEN]
    for agent in innocent:
        tiers.conversations.save_message(agent, "user", "hello")
    assert backlog(SETTINGS, tiers.hot).records == len(innocent)
    assert tiers.flush().messages == len(innocent)
    assert [carried(tiers, agent) for agent in innocent] == [1] * len(innocent)

    (found,) = [check for check in examine(SETTINGS, tiers.hot, tiers.cold) if check.level == "problem"]
    assert found.name == "keys"
    assert f"{key} is a string" in found.said
    assert server.command("GET", key) == b"somebody else's"


def test_well_kept_keys_are_no_problem(tiers: Tiers) -> None:
    tiers.conversations.save_message(agent_in(BROKEN), "user", "hello")
    checks = {check.name: check.level for check in examine(SETTINGS, tiers.hot, tiers.cold)}
    assert checks["keys"] == "ok"


def test_accesses_of_another_type_keep_not_even_their_shard(tiers: Tiers, server: Server) -> None:
    agent = agent_in(BROKEN)
    server.command("SET", tiers.keys(agent).accesses, "somebody else's")
    tiers.conversations.save_message(agent, "user", "hello")
    assert carried(tiers, agent) == 1
    assert server.command("XLEN", tiers.keys(agent).log) == 0


def test_what_cannot_be_buried_waits_until_it_can(tiers: Tiers, server: Server) -> None:
    keys, good = tiers.keys(agent_in(BROKEN)), agent_in(BROKEN)
    tiers.conversations.save_message(good, "user", "hello")
    nested_message(server, keys)
    dead = shard_keys(BROKEN).dead
    server.command("SET", dead, "somebody else's")

    elsewhere = agent_in(2)
    tiers.conversations.save_message(elsewhere, "user", "hello")
    for agent in (None, good):
        with pytest.raises(ConfigurationError, match=f"shard {BROKEN} .*banshee doctor"):
            tiers.flush(agent)
    assert server.command("XLEN", tiers.keys(elsewhere).log) == 0
    assert server.command("XLEN", keys.log) == 2

    server.command("DEL", dead)
    report = tiers.flush()
    assert (report.messages, report.poisoned, server.command("XLEN", dead)) == (1, 1, 1)


def test_the_dead_letters_are_looked_for_in_the_step_that_trims(tiers: Tiers, server: Server) -> None:
    keys = tiers.keys(agent_in(BROKEN))
    nested_message(server, keys)
    shard = shard_keys(BROKEN)
    entries = tiers.hot.run(flushing.log_head(shard, 10, 1_000_000))
    server.command("SET", shard.dead, "somebody else's")
    (reply,) = tiers.hot.try_all(
        [flushing.mark_clean(shard, entries, flushing.Settlement(), 60.0, {entries[0].id: "bad"})]
    )
    assert isinstance(reply, ConfigurationError)
    assert server.command("XLEN", keys.log) == 1
