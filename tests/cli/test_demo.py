"""`banshee demo`: from the embedded servers, twice, and on the servers of the tests."""

from __future__ import annotations

import re
from pathlib import Path
from uuid import uuid4

import pytest

from banshee_memory.cli import demo
from banshee_memory.emotions import EmotionalState
from tests.banshee import ran
from tests.cli.conftest import Run


def assert_whole(told: str) -> None:
    """It shows what it is to show, plainly and within 80 columns."""
    for words in ("What she feels", "What was said", "What she knows", "Flushed", "after evict", "Next, try"):
        assert words in told.replace("0 after.", "0 after evict.")
    assert re.search(r"Her keys in Redis: [1-9]\d* before evict, 0 after\.", told)
    assert len(re.findall(r"^  equal ", told, re.MULTILINE)) == 6
    assert "DIFFERENT" not in told
    assert "\x1b" not in told


def test_again_and_again_on_the_embedded_servers(tmp_path: Path) -> None:
    for _ in range(2):
        done = ran("--data-dir", str(tmp_path / "data"), "demo")
        assert done.returncode == 0, done.stdout + done.stderr
        assert_whole(done.stdout)
        lines = (line for line in done.stdout.splitlines() if str(tmp_path) not in line)
        assert max(map(len, lines)) <= 80
    assert re.search(r"were up after [\d.]+ s", done.stdout)


def test_on_named_servers(run: Run) -> None:
    assert_whole(run("demo").stdout)


def test_what_came_back_different_is_told(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(demo, "_close", lambda due, found: False)
    told = run("demo", code=1).stdout
    assert "DIFFERENT  what is left of them" in told
    assert "Something came back different" in told


def test_the_example_never_expires() -> None:
    lines = demo.example(uuid4())
    assert len(lines) == 20
    assert all(getattr(line, "at", None) is None for line in lines)


def test_close_is_strict() -> None:
    from banshee_memory import Emotion

    joy = EmotionalState({Emotion.JOY: 0.5})
    assert demo._close(joy, EmotionalState({Emotion.JOY: 0.5 + 1e-10}))
    assert not demo._close(joy, EmotionalState({Emotion.JOY: 0.5 + 1e-8}))
    assert not demo._close(joy, EmotionalState({Emotion.HOPE: 0.5}))
