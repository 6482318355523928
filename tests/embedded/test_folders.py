"""Sockets lie in a short folder that nobody else can have made; logs do not grow for ever."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from banshee_memory.embedded import folders
from banshee_memory.embedded.folders import DataFolder
from banshee_memory.errors import ConfigurationError


@pytest.fixture
def data(tmp_path: Path) -> DataFolder:
    made = DataFolder(tmp_path / "data")
    made.create()
    return made


def test_everything_is_the_owners_alone(data: DataFolder) -> None:
    for folder in (data.path, data.redis, data.logs, data.locks):
        assert folder.stat().st_mode & 0o777 == 0o700


def test_the_link_leads_to_the_sockets(data: DataFolder) -> None:
    assert data.sockets() is None
    first = data.new_sockets()
    assert data.sockets() == first
    second = data.new_sockets()
    assert data.sockets() == second
    assert not first.exists()
    data.drop_sockets(second)
    assert data.sockets() is None
    assert not second.exists()


@pytest.mark.parametrize("mode", [0o770, 0o707, 0o777])
def test_a_folder_that_others_may_write_is_not_trusted(data: DataFolder, tmp_path: Path, mode: int) -> None:
    planted = tmp_path / "banshee-planted"
    planted.mkdir()
    planted.chmod(mode)
    data.link.symlink_to(planted)
    assert data.sockets() is None


def test_a_link_to_a_link_is_not_trusted(data: DataFolder, tmp_path: Path) -> None:
    (tmp_path / "private").mkdir(mode=0o700)
    (tmp_path / "banshee-planted").symlink_to(tmp_path / "private")
    data.link.symlink_to(tmp_path / "banshee-planted")
    assert data.sockets() is None


def test_the_runtime_directory_comes_first(data: DataFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    short = Path("/tmp") / f"run-{os.getpid()}"
    short.mkdir()
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(short))
    try:
        sockets = data.new_sockets()
        assert sockets.parent == short
        data.drop_sockets(sockets)
    finally:
        short.rmdir()


def test_no_folder_is_short_enough(data: DataFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(folders, "_LONGEST_SOCKET_PATH", 20)
    before = set(Path("/tmp").glob("banshee-*"))
    with pytest.raises(ConfigurationError, match="Set TMPDIR to a short path"):
        data.new_sockets()
    assert set(Path("/tmp").glob("banshee-*")) <= before


def test_a_large_log_is_put_aside(data: DataFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(folders, "_LOG_LIMIT", 10)
    for _ in range(3):
        descriptor = data.open_log("redis")
        os.write(descriptor, b"twenty bytes of text")
        os.close(descriptor)
    assert sorted(path.name for path in data.logs.iterdir()) == ["redis.log", "redis.log.1"]
    assert data.log("redis").read_text() == "twenty bytes of text"


def test_the_tail_of_a_log(data: DataFolder) -> None:
    assert "no log" in data.log_tail("redis")
    data.log("redis").write_text("")
    assert "empty" in data.log_tail("redis")
    data.log("redis").write_text("".join(f"line {number}\n" for number in range(100)))
    assert data.log_tail("redis").startswith("  | line 88\n")
    assert data.log_tail("redis").endswith("  | line 99")
