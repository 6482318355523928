"""A connection cut at COMMIT: nobody knows whether it was done, so the flush says so, and doing it again is safe."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from uuid import UUID

import pytest

from banshee_memory import (
    AsyncMemoryPlugin,
    ColdStoreUnavailable,
    CustomEvent,
    Durability,
    DurabilityUnavailable,
    Emotion,
    EmotionalState,
    MemoryPlugin,
    NewMessage,
)
from tests.proxy import Cut, Proxy, proxied
from tests.tiering.conftest import SETTINGS
from tests.tiers import Tiers


@pytest.fixture
def proxy(own_urls: tuple[str, str]) -> Iterator[Proxy]:
    with proxied(own_urls[1]) as way:
        yield way


@pytest.fixture
def memory(tiers: Tiers, own_urls: tuple[str, str], proxy: Proxy) -> Iterator[MemoryPlugin]:
    """A client on that way. Nothing of others waits, so the flush is about its own."""
    tiers.flush()
    with MemoryPlugin(proxy.url, own_urls[0], settings=SETTINGS) as plugin:
        yield plugin


def live(memory: MemoryPlugin, agent: UUID) -> None:
    memory.emotions.save_state(agent, EmotionalState({Emotion.LOVE: 0.5}, {Emotion.LOVE: 0.0}))
    memory.conversations.save_messages(
        agent, [NewMessage(role="user", content=f"{n}", tokens_used=2) for n in range(5)]
    )
    memory.emotions.save_event(agent, CustomEvent(event_type="x"), {Emotion.LOVE: 0.25}, mode="add")
    memory.memories.store_memory(agent, "fact", "x", "data")


def check(tiers: Tiers, agent: UUID) -> None:
    """Each is there once, and totals are exact, whichever tier has it."""
    totals = tiers.conversations.get_conversation_stats(agent)
    assert (totals.total_messages, totals.total_tokens) == (5, 10)
    assert [m.content for m in tiers.conversations.get_history(agent)] == ["0", "1", "2", "3", "4"]
    assert len(tiers.emotions.get_event_history(agent)) == 1
    state = tiers.emotions.load_state(agent)
    assert state is not None
    assert state.emotions == {Emotion.LOVE: 0.75}
    assert tiers.memories.get_memory(agent, "fact", "x") is not None


@pytest.mark.parametrize("cut", Cut)
def test_the_next_flush_makes_it_once(
    memory: MemoryPlugin, proxy: Proxy, tiers: Tiers, own_urls: tuple[str, str], agent: UUID, cut: Cut
) -> None:
    live(memory, agent)
    proxy.cut = cut
    with pytest.raises(ColdStoreUnavailable, match=r"lost during COMMIT.*Flushing again is safe"):
        memory.flush(agent)
    assert proxy.cuts == 1
    check(tiers, agent)  # what nobody knows to be cold is still in Redis
    report = memory.flush(agent)
    written = (report.messages, report.events, report.states, report.memories)
    assert written == ((0, 0, 0, 0) if cut is Cut.AFTER else (5, 1, 1, 1))
    assert memory.flush(agent).records == 0
    tiers.evict(agent)
    check(tiers, agent)


@pytest.mark.parametrize("cut", Cut)
def test_a_cold_write_is_unconfirmed_with_a_receipt(
    memory: MemoryPlugin, proxy: Proxy, tiers: Tiers, agent: UUID, cut: Cut
) -> None:
    proxy.cut = cut
    with pytest.raises(DurabilityUnavailable, match="lost during COMMIT") as unconfirmed:
        memory.conversations.save_message(agent, "user", "hello", durability=Durability.COLD)
    error = unconfirmed.value
    assert error.applied
    assert error.receipt is not None
    tiers.flush()
    memory.wait_cold(error.receipt, timeout=10)
    (message,) = memory.conversations.get_history(agent)
    assert message.id == error.result
    assert memory.conversations.get_conversation_stats(agent).total_messages == 1


@pytest.mark.parametrize("cut", Cut)
def test_the_async_client_says_the_same(
    tiers: Tiers, own_urls: tuple[str, str], proxy: Proxy, agent: UUID, cut: Cut
) -> None:
    async def write() -> None:
        async with AsyncMemoryPlugin(proxy.url, own_urls[0], settings=SETTINGS) as plugin:
            proxy.cut = cut
            with pytest.raises(DurabilityUnavailable, match="lost during COMMIT") as unconfirmed:
                await plugin.conversations.save_message(agent, "user", "hello", durability=Durability.COLD)
            assert unconfirmed.value.receipt is not None
            await asyncio.to_thread(tiers.flush)
            await plugin.wait_cold(unconfirmed.value.receipt, timeout=10)

    tiers.flush()
    asyncio.run(write())
    assert tiers.conversations.get_conversation_stats(agent).total_messages == 1
