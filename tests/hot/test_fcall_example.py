"""The shell example of `lua/README.md` does what it says, with redis-cli where there is one, else with a stand-in."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path
from urllib.parse import unquote, urlsplit
from uuid import UUID

import pytest

from banshee_memory import Emotion, EmotionalState
from banshee_memory.hot import calls, library, wire
from banshee_memory.hot.client import HotStore
from banshee_memory.hot.keys import agent_keys
from banshee_memory.settings import Settings

README = Path(library.__file__).parents[1] / "lua" / "README.md"
MIRA = UUID("30313233-3435-3637-3839-616263646566")

STAND_IN = """
import sys
import redis

words = [word.encode() for word in sys.argv[1:]]
if words[0] == b"-x":
    words = [*words[1:], sys.stdin.buffer.read()]
with redis.Redis.from_url({url!r}) as client:
    print(client.execute_command(*words))
"""


@pytest.fixture(params=["redis-cli", "stand-in"])
def path(request: pytest.FixtureRequest, tmp_path: Path, own_url: str) -> str:
    """A PATH whose redis-cli talks to the tests' server."""
    program = tmp_path / "redis-cli"
    real = shutil.which("redis-cli")
    if request.param == "stand-in":
        script = tmp_path / "stand_in.py"
        script.write_text(STAND_IN.format(url=own_url))
        program.write_text(f'#!/bin/sh\nexec {shlex.quote(sys.executable)} {shlex.quote(str(script))} "$@"\n')
    elif real is None:
        pytest.skip("no redis-cli on this machine")
    else:
        socket = unquote(urlsplit(own_url).path)
        program.write_text(f'#!/bin/sh\nexec {shlex.quote(real)} -e -s {shlex.quote(socket)} "$@"\n')
    program.chmod(0o755)
    return str(tmp_path)  # and nothing else: another redis-cli would talk to another server


def example() -> str:
    found = re.search(r"<!-- example -->\s*```sh\n(.*?)```\s*<!-- /example -->", README.read_text(), re.DOTALL)
    assert found
    return found[1]


def test_the_example_feels_speaks_and_is_read_back(hot: HotStore, path: str) -> None:
    ran = subprocess.run(
        ["/bin/sh", "-e", "-c", example()], env={**os.environ, "PATH": path}, capture_output=True, check=False
    )
    assert (ran.returncode, ran.stderr) == (0, b"")
    keys = agent_keys(MIRA, Settings().shards)
    state = hot.run(calls.load_state(keys))
    assert isinstance(state, EmotionalState)
    assert set(state.emotions) == {Emotion.JOY, Emotion.HOPE}
    assert 0.3 >= state.emotions[Emotion.JOY] > 0.1
    (element,) = hot.run(calls.whole_history(keys.messages)).elements
    message = wire.message_of(MIRA, element).record
    assert (message.role, message.content) == ("user", "Hello, Mira")
    assert message.emotional_context is not None
    assert set(message.emotional_context) == {"joy", "hope"}
