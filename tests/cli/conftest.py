"""The command line on the session's servers."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any
from uuid import UUID, uuid4

import pytest
from click.testing import CliRunner, Result

from banshee_memory import MemoryPlugin
from banshee_memory.cli import main

Run = Callable[..., Result]


@pytest.fixture(scope="session")
def urls(redis_url: str, database_url: str) -> tuple[str, str]:
    """(redis_url, database_url), migrated."""
    MemoryPlugin(database_url, redis_url).migrate()
    return redis_url, database_url


@pytest.fixture
def run(urls: tuple[str, str]) -> Run:
    """Runs a command on these servers; it must end well unless another exit code is given."""

    def runs(*words: str, code: int = 0, stdin: str | None = None) -> Result:
        done = CliRunner().invoke(main, ["--redis-url", urls[0], "--database-url", urls[1], *words], input=stdin)
        assert done.exit_code == code, done.output + repr(done.exception)
        return done

    return runs


@pytest.fixture
def told(run: Run) -> Callable[..., Any]:
    """What a command prints with --json."""
    return lambda *words: json.loads(run(*words, "--json").stdout)


@pytest.fixture
def agent() -> UUID:
    """An agent nobody knows yet."""
    return uuid4()
