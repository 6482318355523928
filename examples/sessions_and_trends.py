"""A session with what was felt at both ends of it, and how that changed in between.

    python examples/sessions_and_trends.py

Uses REDIS_URL and DATABASE_URL (migrated), else the embedded servers.
"""
# ruff: noqa: T201

from datetime import UTC, datetime, timedelta
from uuid import uuid4

from banshee_memory import Emotion, GoalProgress, MemoryPlugin, TaskCompleted

MINUTE = timedelta(minutes=1)
TASK = TaskCompleted(success=True, difficulty=0.7, time_taken=95.0, expected_time=120.0)


def main() -> None:
    """Half an hour of an agent that does not feel the time between its sessions."""
    agent, now = uuid4(), datetime.now(UTC)
    with MemoryPlugin() as memory:
        slow = dict.fromkeys((Emotion.HOPE, Emotion.PRIDE), 1200.0)
        memory.emotions.set_temperament(agent, half_lives=slow, absence="active")
        memory.emotions.update_emotions(agent, {Emotion.HOPE: 0.5})
        session = memory.sessions.start_session(agent, {"channel": "chat"})

        memory.conversations.save_message(agent, "user", "Is it done?", tokens_used=4)
        for minutes in (30, 20, 10):
            step = GoalProgress(progress_delta=0.2, goal_importance=0.8, is_milestone=minutes == 10)
            memory.emotions.save_event(agent, step, {Emotion.HOPE: 0.2}, mode="add", occurred_at=now - minutes * MINUTE)
        memory.emotions.save_event(agent, TASK, {Emotion.PRIDE: 0.6})

        session = memory.sessions.end_session(agent, session.id)
        print(f"{session.total_messages} messages, {session.total_events} events, {session.total_tokens_used} tokens")
        print("began with", ", ".join(sorted(session.initial_emotional_state)))
        print("ended with", ", ".join(sorted(session.final_emotional_state or {})))

        for point in memory.emotions.get_emotional_trends(agent, hours=1, bucket=15 * MINUTE):
            felt = f"valence {point.valence:+.2f}, intensity {point.intensity:.2f}"
            print(f"{point.at:%H:%M} {point.events} events, {felt}")


if __name__ == "__main__":
    main()
