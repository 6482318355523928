"""Who runs the servers: an ordinary user, one without a name, or root, which must seem to be another."""

from __future__ import annotations

import os
import pwd
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from banshee_memory.embedded.binaries import bundled
from banshee_memory.embedded.identity import namespaces_work, other_identity, suits_postgres
from tests.embedded.processes import User, postmasters, redis_servers, stop, supervisors

as_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can become somebody else")

# Runs a command as root of a user namespace that has nobody and everybody in it, and allows no further namespaces.
_WITHOUT_NAMESPACES = """
import os, sys
from ctypes import CDLL
parent_done, child_made = os.pipe(), os.pipe()
child = os.fork()
if child == 0:
    assert CDLL(None).unshare(0x10000000) == 0
    os.write(child_made[1], b".")
    os.read(parent_done[0], 1)
    with open("/proc/sys/user/max_user_namespaces", "w") as limit:
        limit.write("0")
    os.execvp(sys.argv[1], sys.argv[1:])
os.read(child_made[0], 1)
for name in ("uid_map", "gid_map"):
    with open(f"/proc/{child}/{name}", "w") as mapping:
        mapping.write("0 0 65536")
os.write(parent_done[1], b".")
sys.exit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""


def become(uid: int, gid: int) -> list[str]:
    """A prefix that runs a command as somebody else, who may still read what only root may.

    The interpreter and this package are often in a folder of root's own.
    """
    if shutil.which("setpriv") is None:
        pytest.skip("there is no setpriv here")
    if not findable(bundled().postgres_bin):  # PostgreSQL looks for its own programs by access(2)
        pytest.skip("the bundled programs are in a folder of root's own")
    capability = [f"--{kind}-caps=+dac_read_search" for kind in ("inh", "ambient")]
    prefix = ["setpriv", f"--reuid={uid}", f"--regid={gid}", "--clear-groups", *capability]
    if subprocess.run([*prefix, sys.executable, "-c", ""], check=False, capture_output=True).returncode != 0:
        pytest.skip("setpriv cannot do this here")
    return prefix


def owners(data_dir: Path) -> set[int]:
    return {path.lstat().st_uid for path in (data_dir, *data_dir.rglob("*"))}


@pytest.fixture
def open_dir() -> Iterator[Path]:
    """A directory that everybody could find."""
    with tempfile.TemporaryDirectory(prefix="open-") as folder:
        Path(folder).chmod(0o755)
        data_dir = Path(folder, "data")
        data_dir.mkdir(mode=0o700)
        yield data_dir
        stop(data_dir)


@as_root
def test_an_ordinary_user(open_dir: Path) -> None:
    nobody = pwd.getpwnam("nobody")
    os.chown(open_dir, nobody.pw_uid, nobody.pw_gid)
    with User(open_dir, run_by=become(nobody.pw_uid, nobody.pw_gid)) as user:
        user.urls()
        pids = supervisors(open_dir) + redis_servers(open_dir) + postmasters(open_dir)
        assert {os.stat(f"/proc/{pid}").st_uid for pid in pids} == {nobody.pw_uid}  # noqa: PTH116
        user.leave()
    stop(open_dir)
    assert owners(open_dir) == {nobody.pw_uid}


@as_root
def test_a_user_without_a_name(open_dir: Path) -> None:
    if not namespaces_work():
        pytest.skip("the kernel refuses user namespaces")
    os.chown(open_dir, 54321, 54321)
    with User(open_dir, run_by=become(54321, 54321)) as user:
        user.urls()
        user.leave()
    assert owners(open_dir) == {54321}


@as_root
def test_root_without_namespaces_hands_over_to_nobody(open_dir: Path) -> None:
    if not findable(bundled().postgres_bin):
        pytest.skip("the bundled programs are in a folder of root's own")
    # The second time it is the directory of somebody else, whom root becomes wherever that is so.
    for run_by in (without_namespaces(), []):
        with User(open_dir, run_by=run_by) as user:
            user.urls()
            user.leave()
        stop(open_dir)
        assert owners(open_dir) == {pwd.getpwnam("nobody").pw_uid}


@as_root
def test_root_without_namespaces_says_where_nobody_cannot_go(new_dir: Path) -> None:
    new_dir.parent.chmod(0o700)
    with User(new_dir, run_by=without_namespaces()) as user, pytest.raises(AssertionError) as caught:
        user.urls()
    assert "Set BANSHEE_DATA_DIR to a folder outside of it" in str(caught.value)


@as_root
def test_roots_files_stay_roots(data_dir: Path) -> None:
    assert owners(data_dir) == {0}


def test_the_other_identity_suits_postgresql() -> None:
    uid, _ = other_identity()
    assert uid != 0
    assert pwd.getpwuid(uid)
    assert suits_postgres() == (os.geteuid() != 0)


def findable(path: Path) -> bool:
    return all(folder.stat().st_mode & 0o001 for folder in path.resolve().parents)


def without_namespaces() -> list[str]:
    prefix = [sys.executable, "-c", _WITHOUT_NAMESPACES]
    if subprocess.run([*prefix, "true"], check=False, capture_output=True).returncode != 0:
        pytest.skip("no namespace can be made in which there are none")
    return prefix
