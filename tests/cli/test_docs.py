"""The pages about the command line say what it does."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from banshee_memory.cli import main
from banshee_memory.emotions import Emotion
from banshee_memory.tiering.transfer import parse
from tests.cli.conftest import Run
from tests.cli.reference import FILE, page

FORMAT = Path(__file__).parents[2] / "docs" / "import-format.md"
EXAMPLES = [
    line for block in re.findall(r"```json\n(.*?)```", FORMAT.read_text(), re.DOTALL) for line in block.splitlines()
]
PLANNED = {"tail"}
CONTRACT = PLANNED | {
    *("demo", "daemon", "import", "export", "flush", "rehydrate", "evict", "stats", "show", "trends", "search"),
    *("migrate", "doctor", "dead-letters", "forget", "bench"),
}
BEYOND = {"why"}


def test_every_command_is_there_and_documented() -> None:
    assert set(main.commands) == CONTRACT - PLANNED | BEYOND
    assert set(re.findall(r"^## banshee (\S+)$", FILE.read_text(), re.MULTILINE)) == set(main.commands)


def test_the_reference_is_what_the_commands_say() -> None:
    assert FILE.read_text() == page(), "write it anew: python -m tests.cli.reference"


def test_every_kind_of_record_has_an_example() -> None:
    assert {json.loads(line)["type"] for line in EXAMPLES} == {"message", "event", "state", "memory"}
    assert len(list(parse(line.encode() for line in EXAMPLES))) == len(EXAMPLES)


@pytest.mark.parametrize("line", EXAMPLES)
def test_each_example_goes_in(run: Run, line: str) -> None:
    record = json.loads(line)
    if "at" in record:
        record["ago"] = 60  # the date in it will be beyond retention one day
        del record["at"]
    assert "of 1 agents went in" in run("import", "-", stdin=json.dumps(record)).stdout


def test_events_and_emotions_are_named_as_they_are() -> None:
    told = FORMAT.read_text()
    assert f"the {len(Emotion)} emotions" in told
