"""Agents with a small life whose whole content is known, and a reading of all that both tiers say of one."""

from __future__ import annotations

from typing import Any, NamedTuple
from uuid import UUID, uuid4

from banshee_memory import CustomEvent, Emotion, EmotionalState, MemoryPlugin, NewMessage
from tests.tiers import Tiers

STEADY = dict.fromkeys(Emotion, 0.0)
"""Rates under which nothing fades: what is read does not depend on when."""
HAPPENED = CustomEvent(event_type="happened")


class Life(NamedTuple):
    """What an agent is known to have been through."""

    agent: UUID
    texts: list[str]
    ids: list[UUID]


def begin(tiers: Tiers, placement: str) -> Life:
    """An agent with a state, 8 messages (3 beyond the cap), 6 events, 3 memories; `half`: all of it half flushed."""
    agent = uuid4()
    tiers.emotions.save_state(agent, EmotionalState({Emotion.JOY: 0.5}, dict(STEADY)))
    texts = [f"word number {n}" for n in range(8)]
    ids = tiers.conversations.save_messages(agent, [_message(text) for text in texts[:5]])
    for n in range(3):
        tiers.memories.store_memory(agent, "fact", f"k{n}", n, importance=0.5 - n / 8)
    for _ in range(5):
        tiers.emotions.save_event(agent, HAPPENED, {Emotion.HOPE: 0.25})
    if placement == "half":
        tiers.evict(agent)
    ids += tiers.conversations.save_messages(agent, [_message(text) for text in texts[5:]])
    tiers.emotions.save_event(agent, HAPPENED, {Emotion.HOPE: 0.5})
    tiers.memories.store_memory(agent, "fact", "k1", "one", importance=0.375)
    if placement == "cold":
        tiers.evict(agent)
    if placement == "clean":
        tiers.flush(agent)
    return Life(agent, texts, ids)


def _message(text: str) -> NewMessage:
    return NewMessage(role="user", content=text, tokens_used=2)


def everything(tiers: Tiers | MemoryPlugin, agent: UUID) -> dict[str, Any]:
    """All that the public methods say of an agent."""
    state = tiers.emotions.load_state(agent)
    assert state is not None
    return {
        "state": (state.emotions, state.decay_rates),
        "messages": tiers.conversations.get_history(agent, 100),
        "events": tiers.emotions.get_event_history(agent),
        "totals": tiers.conversations.get_conversation_stats(agent),
        "found": sorted(m.id for m in tiers.conversations.search_messages(agent, "word")),
        "memories": tiers.memories.get_memories_by_type(agent, "fact"),
    }
