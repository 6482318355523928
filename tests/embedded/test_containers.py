"""Where containers are asked for and no engine answers, the tests that need servers are skipped, and say why."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.servers import CONTAINERS_VARIABLE, servers


@pytest.fixture(autouse=True)
def _no_engine(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in os.environ:
        if name.startswith(("DOCKER_", "TESTCONTAINERS_", "BANSHEE_TEST_")):
            monkeypatch.delenv(name)
    monkeypatch.setenv("DOCKER_HOST", "unix:///nonexistent/engine.sock")
    monkeypatch.setenv(CONTAINERS_VARIABLE, "1")


def test_no_engine_is_a_skip(tmp_path: Path) -> None:
    with pytest.raises(pytest.skip.Exception, match="no container engine answers"), servers(tmp_path):
        pass


def test_servers_that_are_named_come_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BANSHEE_TEST_REDIS_URL", "redis://named")
    monkeypatch.setenv("BANSHEE_TEST_DATABASE_URL", "postgresql://named")
    with servers(tmp_path) as urls:
        assert urls == ("redis://named", "postgresql://named")


def test_one_named_server_is_a_mistake(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BANSHEE_TEST_REDIS_URL", "redis://named")
    with pytest.raises(pytest.UsageError, match="belong together"), servers(tmp_path):
        pass


def test_the_users_servers_are_out_of_reach() -> None:
    assert "REDIS_URL" not in os.environ
    assert "DATABASE_URL" not in os.environ
