"""The server as any client sees it: commands and functions by name, and all that it holds."""

from __future__ import annotations

from typing import Any

from banshee_memory.emotions import StoredState
from banshee_memory.hot import calls, wire
from banshee_memory.hot.calls import Argument, Call
from banshee_memory.hot.client import HotStore
from banshee_memory.hot.keys import AgentKeys
from tests.own_servers import CLOCK_KEY


class Server:
    """Commands, without what this package makes of their replies."""

    def __init__(self, hot: HotStore) -> None:
        self._hot = hot

    def command(self, *words: Argument) -> Any:
        """What the server replies to a command."""
        return self._hot.run(Call(words, lambda reply: reply))

    def fcall(self, name: str, keys: list[str], *args: Argument) -> Any:
        """What a function of the library replies."""
        return self.command("FCALL", f"banshee1_{name}", len(keys), *keys, *args)

    def set_clock(self, us: float | None) -> None:
        """Stops the library's clock at that time; None lets it go on."""
        if us is None:
            self.command("DEL", CLOCK_KEY)
        else:
            self.command("SET", CLOCK_KEY, f"{us:.0f}")

    def content(self) -> dict[bytes, tuple[bytes, int]]:
        """Every key but empty logs, its value and its TTL: what must be equal where nothing was written."""
        every = [key for key in sorted(self.command("KEYS", "*")) if not self._is_empty_log(key)]
        return {key: (self.command("DUMP", key), self.command("PEXPIRETIME", key)) for key in every}

    def _is_empty_log(self, key: bytes) -> bool:
        return key.endswith(b":log") and self.command("TYPE", key) == b"stream" and not self.command("XLEN", key)

    def ttl(self, key: str) -> int:
        """Milliseconds; −1 for ever, −2 no such key."""
        return int(self.command("PTTL", key))


def stored_state(hot: HotStore, keys: AgentKeys) -> StoredState | None:
    """A state as it is stored: what was felt and when, undecayed."""
    flat = hot.run(calls.state_hash(keys))
    return wire.state_of(flat)
