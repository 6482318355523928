"""What an agent brings to its next turn: what it feels, what was said, what it knows."""

from __future__ import annotations

from collections.abc import Sequence

from banshee_memory.hot import packed
from banshee_memory.hot.calls import Call, Miss
from banshee_memory.hot.keys import AgentKeys
from banshee_memory.records import Turn, known
from banshee_memory.tiering import histories, pages, states
from banshee_memory.tiering.histories import MESSAGES
from banshee_memory.tiering.residency import Residency
from banshee_memory.tiering.steps import Steps, side_by_side


def recall(residency: Residency, keys: AgentKeys, messages: int, memories: int, memory_type: str | None) -> Steps[Turn]:
    """The state, the newest messages, the worthiest memories."""
    state, history, page = yield from side_by_side(
        states.load(residency, keys),
        histories.newest(MESSAGES, residency, keys, messages),
        pages.by_type(residency, keys, memory_type, memories, 0),
    )
    return Turn(state=state, messages=history, memories=[known(stored) for stored in page])


def recall_call(
    keys: AgentKeys, clock: Call[int], messages: int, memories: int, memory_type: str | None, members: Sequence[str]
) -> Call[Turn | Miss]:
    """The same where Redis has all of it and these are the memories that the agent's index names; else a miss."""
    return packed.together(
        packed.load_state(keys, clock),
        histories.newest_call(MESSAGES, keys, messages),
        pages.page_call(keys, clock, memory_type, memories, members),
        decode=lambda state, history, page: Turn(state=state, messages=history, memories=page),
    )
