"""What is beyond retention when it is carried is nowhere afterwards."""

from __future__ import annotations

from collections.abc import Iterator
from uuid import UUID

import msgspec
import pytest

from banshee_memory import Emotion, EmotionalState
from banshee_memory.hot import calls, wire
from tests.hot.raw import Server
from tests.own_servers import CLOCK
from tests.tiering.lives import HAPPENED
from tests.tiers import Tiers

DAY_US = 86_400_000_000


@pytest.fixture
def forgetful(own_urls: tuple[str, str], tiers: Tiers) -> Iterator[Tiers]:
    settings = msgspec.structs.replace(tiers.settings, message_retention_days=90, event_retention_days=30)
    client = Tiers(*own_urls, settings, clock=CLOCK)
    yield client
    client.close()


def test_it_leaves_the_list_and_the_totals_with_the_flush(forgetful: Tiers, agent: UUID) -> None:
    server, keys = Server(forgetful.hot), forgetful.keys(agent)
    forgetful.flush()  # of the agent's shard, others may have left something
    now = forgetful.hot.run(calls.now())
    forgetful.emotions.save_state(agent, EmotionalState({Emotion.JOY: 0.5}))
    for days, text in ((91, "over"), (89, "kept")):
        body = wire.message_body(text.ljust(8).encode(), "user", text, None, None, 5, None)
        at = [keys.messages, keys.log, keys.state]
        server.fcall("append_messages", at, agent.bytes, now - days * DAY_US, "", body)
    for days in (31, 29):
        body = wire.pack(wire.EventBody(days.to_bytes(8, "big"), HAPPENED))
        at = [keys.events, keys.log, keys.state, keys.feed]
        server.fcall("save_event", at, agent.bytes, "record", now - days * DAY_US, body)

    report = forgetful.flush(agent)

    assert (report.expired, report.messages, report.events) == (2, 1, 1)
    assert [m.content for m in forgetful.conversations.get_history(agent)] == ["kept"]
    assert len(forgetful.emotions.get_event_history(agent)) == 1
    totals = forgetful.conversations.get_conversation_stats(agent)
    assert (totals.total_messages, totals.total_tokens) == (1, 5)
    assert server.command("LLEN", keys.messages) == server.command("LLEN", keys.events) == 2
