"""One pass of a flush carries a bounded part of a long log, by bytes as well as by entries."""

from __future__ import annotations

from uuid import UUID

from banshee_memory import NewMessage
from banshee_memory.hot.keys import shard_of
from banshee_memory.tiering.drain import Drain
from tests.hot.raw import Server
from tests.tiers import Tiers

MOST = 1_000_000
LARGE = 200_000


def test_a_backlog_of_large_messages_is_carried_by_the_megabyte(tiers: Tiers, agent: UUID) -> None:
    tiers.flush()
    shard = shard_of(agent, tiers.settings.shards)
    large = NewMessage(role="user", content="word " * (LARGE // 5))
    for _ in range(6):
        tiers.conversations.save_messages(agent, [large] * 5)
    drain = Drain(tiers.settings, tiers.hot, tiers.cold)
    passes = []
    while shard in drain.waiting():
        _, loads = drain.carry([shard], wait=30)
        passes.append([entry.size for entry in loads[shard].entries])
    assert sum(map(len, passes)) == 30
    assert max(map(sum, passes)) <= MOST
    assert max(map(len, passes)) == 4  # a fifth would be a little too much
    assert tiers.conversations.get_conversation_stats(agent).total_messages == 30


def test_one_entry_is_carried_whatever_its_size(tiers: Tiers, agent: UUID) -> None:
    tiers.flush()
    keys = tiers.keys(agent)
    huge = b"M" + agent.bytes, b"x" * (2 * MOST)
    for kind, payload in (huge, huge):
        Server(tiers.hot).command("XADD", keys.log, "*", "k", kind, "p", payload)
    drain = Drain(tiers.settings, tiers.hot, tiers.cold)
    for _ in range(2):
        report, loads = drain.carry([keys.shard], wait=30)
        assert len(loads[keys.shard].entries) == report.poisoned == 1
    assert keys.shard not in drain.waiting()
