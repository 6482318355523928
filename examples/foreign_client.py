"""The hot tier without this library: plain redis-py, FCALL and MessagePack. Any Redis client can do the same.

    banshee daemon &
    REDIS_URL=redis://localhost:6379 python examples/foreign_client.py AGENT

AGENT is the UUID of an agent that is in PostgreSQL. Where it is not in Redis, a function answers MISS and has written
nothing: then this asks the daemon for it (`want`), and calls again. lua/README.md describes the functions.
"""
# ruff: noqa: T201

import os
import struct
import sys
import time
from typing import Any
from uuid import UUID

import msgspec.msgpack
import redis

# fmt: off
RATES = {  # the part of an intensity that is lost in a second
    "joy": 0.05, "distress": 0.08, "hope": 0.06, "fear": 0.12, "satisfaction": 0.04, "disappointment": 0.07,
    "relief": 0.08, "fear_confirmed": 0.10, "pride": 0.03, "shame": 0.10, "admiration": 0.04, "reproach": 0.08,
    "gratification": 0.03, "remorse": 0.09, "gratitude": 0.03, "anger": 0.15, "love": 0.01, "hate": 0.02,
    "happy_for": 0.05, "resentment": 0.06, "gloating": 0.07, "pity": 0.04,
}
# fmt: on


class Agent:
    """One agent, as its shard's keys and its 16 bytes."""

    def __init__(self, client: redis.Redis, agent_id: UUID) -> None:
        self.client = client
        self.bytes = agent_id.bytes
        shards = int(client.hget("banshee:store", "shards") or 64)
        shard = int.from_bytes(agent_id.bytes[-4:], "big") % shards
        self.shard = f"banshee:{{{shard}}}:"
        self.state, self.messages = f"{self.shard}state:{agent_id}", f"{self.shard}messages:{agent_id}"
        self.log = f"{self.shard}log"

    def call(self, function: str, keys: list[str], *args: Any) -> Any:
        """Calls a function; where the agent is not in Redis, has it brought in first."""
        deadline = time.monotonic() + 10
        while True:
            reply = self.client.fcall(f"banshee1_{function}", len(keys), *keys, *args)
            if reply != b"MISS":
                return reply
            if time.monotonic() > deadline:
                raise TimeoutError("nobody brings the agent in: does a daemon run?")
            print("MISS")
            self.client.fcall("banshee1_want", 1, f"{self.shard}wanted", self.bytes)
            time.sleep(0.2)

    def feel(self, **changes: float) -> dict[str, float]:
        """Adds to what it feels; what it feels then."""
        pairs = [word for emotion, amount in changes.items() for word in (emotion, repr(amount))]
        return felt(self.call("update_emotions", [self.state, self.log], self.bytes, "add", *pairs))

    def say(self, role: str, content: str) -> None:
        """Appends a message, with what it feels at that."""
        body = msgspec.msgpack.encode([os.urandom(8), role, content])
        self.call("append_messages", [self.messages, self.log, self.state], self.bytes, "", "1", body)


def felt(reply: list[Any]) -> dict[str, float]:
    """What a reply `[now, field, value, …]` says is felt now, of an agent whose decay never stands still."""
    now, fields = float(reply[0]), dict(zip(reply[1::2], reply[2::2], strict=True))
    state = {}
    for name, usual in RATES.items():
        if (value := fields.get(name.encode())) is not None:
            own = fields.get(f"{name}/rate".encode())
            rate = struct.unpack(">d", own)[0] if own else usual
            intensity, when = struct.unpack(">dd", value)
            state[name] = intensity * (1.0 - rate) ** (max(now - when, 0.0) / 1e6)
    return {name: intensity for name, intensity in state.items() if intensity >= 0.01}


def main() -> None:
    """Feels, and says so."""
    with redis.Redis.from_url(os.environ["REDIS_URL"]) as client:
        agent = Agent(client, UUID(sys.argv[1]))
        state = agent.feel(joy=0.25, hope=0.5)
        print("feels", sorted(state))
        agent.say("assistant", f"What I feel: {', '.join(sorted(state))}.")
        print("said it")


if __name__ == "__main__":
    main()
