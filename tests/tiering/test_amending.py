"""An amended message says the same at every moment of a long flush, however small its steps."""

from __future__ import annotations

from uuid import UUID

import msgspec
import pytest

from banshee_memory import NewMessage
from banshee_memory.hot.keys import shard_of
from banshee_memory.tiering.drain import Drain
from tests.tiers import Tiers

MESSAGES = 40


@pytest.mark.parametrize("placement", ["hot", "cold"])
@pytest.mark.parametrize("batch", [1, 7])
def test_an_old_message_keeps_its_new_context(tiers: Tiers, agent: UUID, placement: str, batch: int) -> None:
    said = [NewMessage(role="user", content=f"{n}") for n in range(MESSAGES)]
    ids = tiers.conversations.save_messages(agent, said)
    if placement == "cold":
        tiers.evict(agent)
        tiers.conversations.save_messages(agent, said[:5])
    tiers.conversations.update_emotional_context(agent, ids[3], {"mood": "changed"})
    drain = Drain(msgspec.structs.replace(tiers.settings, flush_batch=batch), tiers.hot, tiers.cold)
    shard, passes = shard_of(agent, tiers.settings.shards), 0
    while shard in drain.waiting():
        drain.carry([shard], wait=30)
        passes += 1
        (amended,) = [m for m in tiers.conversations.get_history(agent, 2 * MESSAGES) if m.id == ids[3]]
        assert amended.emotional_context == {"mood": "changed"}, f"after pass {passes}"
    assert passes >= 1 + (6 if placement == "cold" else MESSAGES + 1) // batch - (batch == 1)
