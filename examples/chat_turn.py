"""One turn of a chat: what is said moves what the agent feels, and what it feels goes into its answer.

    python examples/chat_turn.py

Uses REDIS_URL and DATABASE_URL (migrated), else the embedded servers.
"""
# ruff: noqa: T201

from uuid import UUID, uuid4

from banshee_memory import Emotion, MemoryPlugin, UserFeedback


def answer(prompt: str) -> str:
    """Where a language model would be asked."""
    return f"I feel {prompt.partition(' ')[0]}. Tea as ever, and the fox says hello."


def turn(memory: MemoryPlugin, agent: UUID, said: str) -> str:
    """Takes what a user says, and gives the agent's answer; both are remembered with what was felt at them."""
    memory.conversations.save_message(agent, "user", said, emotional_context="current")
    praise = UserFeedback(sentiment=0.9, specificity=0.4, is_constructive=True)
    event = memory.emotions.save_event(agent, praise, {Emotion.JOY: 0.7, Emotion.GRATITUDE: 0.4}, mode="add")
    print(f"the praise changed valence by {event.valence_delta:+.2f}, intensity by {event.intensity_delta:+.2f}")

    state = memory.emotions.load_state(agent)
    tea = memory.memories.retrieve_memory(agent, "preference", "tea")
    history = memory.conversations.get_history(agent, 10)
    prompt = "\n".join([state.summary() if state else "calm", f"tea: {tea}", *(m.content for m in history)])

    reply = answer(prompt)
    memory.conversations.save_message(agent, "assistant", reply, tokens_used=14, emotional_context="current")
    return reply


def main() -> None:
    """One turn, and what is left of it."""
    agent = uuid4()
    with MemoryPlugin() as memory:
        memory.memories.store_memory(agent, "preference", "tea", {"kind": "green"}, tags=["kitchen"])
        print("agent:", turn(memory, agent, "That story about the fox was lovely!"))
        for message in memory.conversations.get_history(agent):
            print(f"{message.role:>9}: {message.content}  {sorted(message.emotional_context or {})}")
        print("found:", [message.role for message in memory.conversations.search_messages(agent, "foxes")])


if __name__ == "__main__":
    main()
