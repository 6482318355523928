"""The second pair of servers is found where it is, and its absence is no failure."""

from __future__ import annotations

from contextlib import nullcontext
from pathlib import Path

import psycopg
import pytest
import redis

from banshee_memory.embedded import start
from banshee_memory.embedded.binaries import bundled
from tests import matrix


def test_without_a_second_pair(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(matrix, "second_pair", lambda: None)
    assert matrix.main([]) == 0
    assert capsys.readouterr().out == "matrix: no second pair of servers on this machine; nothing run\n"


def test_the_second_pair_serves(new_dir: Path) -> None:
    binaries = matrix.second_pair()
    if binaries is None:
        pytest.skip("no second pair of servers on this machine")
    with start(new_dir, binaries=binaries) as servers:
        with redis.Redis.from_url(servers.redis_url) as client:
            assert client.ping()
        with psycopg.connect(servers.database_url) as connection:
            assert connection.execute("SHOW server_encoding").fetchone() == ("UTF8",)


def test_the_status_is_that_of_pytest(monkeypatch: pytest.MonkeyPatch) -> None:
    programs = bundled()  # any pair will do
    monkeypatch.setattr(matrix, "second_pair", lambda: programs)
    monkeypatch.setattr(matrix, "start", lambda folder, binaries: nullcontext(binaries))
    monkeypatch.setattr(matrix, "run_pytest", lambda servers, arguments: len(arguments) if servers is programs else 0)
    assert matrix.main(["one", "two"]) == 2
