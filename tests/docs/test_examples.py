"""Every example runs, and prints what it is there to show."""

from __future__ import annotations

import re
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from uuid import UUID

import pytest

from banshee_memory import Emotion, EmotionalState, MemoryPlugin, Settings
from banshee_memory.operations import Operations
from tests.banshee import environment
from tests.tiers import Tiers

ROOT = Path(__file__).parents[2]
SETTINGS = Settings()
README = ROOT / "README.md"
EXAMPLES = {path.stem: path for path in (ROOT / "examples").glob("*.py")}


def ran(urls: tuple[str, str], *words: str) -> list[str]:
    """The lines that a program prints; it must end well and warn of nothing."""
    done = subprocess.run(
        [sys.executable, "-W", "error", *words],
        env=environment(urls),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout.splitlines()


def test_each_has_a_test_here() -> None:
    assert EXAMPLES.keys() == {"chat_turn", "async_agent", "sessions_and_trends", "foreign_client"}


def test_a_chat_turn(urls: tuple[str, str]) -> None:
    praise, answer, user, assistant, found = ran(urls, str(EXAMPLES["chat_turn"]))
    assert praise == "the praise changed valence by +1.00, intensity by +1.10"
    assert answer.startswith("agent: I feel joy.")
    assert user.strip() == "user: That story about the fox was lovely!  []"
    assert assistant.strip().endswith("['gratitude', 'joy']")
    assert found == "found: ['assistant', 'user']"


def test_tasks_that_share_an_agent(urls: tuple[str, str]) -> None:
    told, heard = ran(urls, str(EXAMPLES["async_agent"]))
    assert told.startswith("16 messages, pride 0.40 ")
    assert re.fullmatch(r"heard of tool_call_failed: intensity \+0\.\d\d", heard)


def test_sessions_and_trends(urls: tuple[str, str]) -> None:
    totals, began, ended, *points = ran(urls, str(EXAMPLES["sessions_and_trends"]))
    assert totals == "1 messages, 4 events, 4 tokens"
    assert (began, ended) == ("began with hope", "ended with hope, pride")
    assert len(points) >= 3
    assert sum(int(point.split()[1]) for point in points) == 4


def test_a_foreign_client(urls: tuple[str, str], memory: MemoryPlugin, agent: UUID) -> None:
    memory.emotions.save_state(agent, EmotionalState({Emotion.JOY: 0.5}, {Emotion.JOY: 0.0}))
    memory.evict(agent)
    with daemon(urls):
        *missed, feels, said = ran(urls, str(EXAMPLES["foreign_client"]), str(agent))
    assert set(missed) == {"MISS"}
    assert (feels, said) == ("feels ['hope', 'joy']", "said it")
    state = memory.emotions.load_state(agent)
    assert state is not None
    assert state.emotions[Emotion.JOY] == 0.75
    (message,) = memory.conversations.get_history(agent)
    assert message.content == "What I feel: hope, joy."
    assert message.emotional_context is not None
    assert message.emotional_context["joy"] == 0.75


@contextmanager
def daemon(urls: tuple[str, str]) -> Iterator[None]:
    """What a daemon does for those who want an agent, ten times a second."""
    tiers, wanted, over = Tiers(*urls, SETTINGS), Operations(SETTINGS), threading.Event()

    def rehydrate() -> None:
        while not over.wait(0.1):
            tiers.run(wanted.rehydrate_wanted())

    thread = threading.Thread(target=rehydrate)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()
        tiers.close()


def test_what_the_readme_shows(urls: tuple[str, str], tmp_path: Path) -> None:
    (shown,) = re.findall(r"<!-- example -->\n```python\n(.*?)```\n<!-- /example -->", README.read_text(), re.DOTALL)
    program = tmp_path / "shown.py"
    program.write_text(shown)
    before, said, known, after = ran(urls, str(program))
    for felt in (before, after):
        assert re.fullmatch(r"joy 0\.\d\d, pride 0\.\d\d \(valence \+1\.00, arousal 0\.\d\d\)", felt)
    assert (said, known) == ("['How are you feeling?']", "{'style': 'friendly'}")


@pytest.mark.parametrize("name", sorted(EXAMPLES))
def test_an_example_says_how_it_is_started(name: str) -> None:
    assert f"python examples/{name}.py" in EXAMPLES[name].read_text()
