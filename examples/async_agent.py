"""Several tasks share one agent: what they do at once to what it feels is all there.

    python examples/async_agent.py

Uses REDIS_URL and DATABASE_URL (migrated), else the embedded servers.
"""
# ruff: noqa: T201

import asyncio
from uuid import UUID, uuid4

from banshee_memory import AsyncMemoryPlugin, Emotion, EmotionalEventRecord, NewMessage, ToolCallFailed


async def worker(memory: AsyncMemoryPlugin, agent: UUID, number: int) -> None:
    """Says two things in one round trip, and is a little proud of it. Tried again, it counts once."""
    said = [NewMessage(role="tool", content=f"worker {number}: {word}") for word in ("began", "done")]
    for _ in range(2):
        await memory.conversations.save_messages(agent, said, idempotency_key=f"worker {number}")
        await memory.emotions.update_emotions(agent, {Emotion.PRIDE: 0.05}, idempotency_key=f"worker {number}")


async def first_event(memory: AsyncMemoryPlugin, agent: UUID, after: EmotionalEventRecord) -> EmotionalEventRecord:
    """The next thing that happens to the agent, from the live feed."""
    async for event in memory.emotions.subscribe(agent, after=after):
        return event
    raise AssertionError("a feed does not end")


async def main() -> None:
    """Eight workers and one that listens."""
    agent = uuid4()
    async with AsyncMemoryPlugin() as memory:
        await memory.emotions.set_temperament(agent, half_lives={Emotion.PRIDE: 3600})
        await asyncio.gather(*(worker(memory, agent, number) for number in range(8)))
        state = await memory.emotions.load_state(agent)
        stats = await memory.conversations.get_conversation_stats(agent)
        print(f"{stats.total_messages} messages, {state.summary() if state else 'calm'}")

        failed = ToolCallFailed(attempts=3, error_severity=0.6, is_critical=False)
        seen = await memory.emotions.save_event(agent, failed, {Emotion.DISTRESS: 0.4})
        listening = asyncio.create_task(first_event(memory, agent, seen))
        await memory.emotions.save_event(agent, failed, {Emotion.DISTRESS: 0.6})
        event = await asyncio.wait_for(listening, 10)
        print(f"heard of {event.event_type}: intensity {event.intensity_delta:+.2f}")


if __name__ == "__main__":
    asyncio.run(main())
