"""Who the servers run as. PostgreSQL refuses root, so root needs a way around.

* An ordinary user is just that.
* Root on a data directory of somebody else becomes that user, for good: what is written stays theirs.
* Root on its own data directory runs PostgreSQL in a user namespace, where it is seen as another; files stay
  root's.
* Where the kernel refuses namespaces (in most containers), root hands the data directory to `nobody` and becomes
  it.
* PostgreSQL also refuses a user without a name, as containers have them: a namespace gives that one a name.
"""

from __future__ import annotations

import ctypes
import os
import pwd
import sys
from pathlib import Path

from banshee_memory.embedded.failure import StartError

_CLONE_NEWUSER = 0x10000000
_libc = ctypes.CDLL(None, use_errno=True)


def settle(data_dir: Path) -> None:
    """Become who may run the servers on this directory; afterwards, root means that namespaces work."""
    if os.geteuid() != 0:
        return
    owner = data_dir.stat()
    if owner.st_uid != 0:
        _become(owner.st_uid, owner.st_gid)
    elif not namespaces_work():
        nobody = pwd.getpwnam("nobody")
        _require_way_to(data_dir, nobody.pw_name)
        _hand_over(data_dir, nobody.pw_uid, nobody.pw_gid)
        _become(nobody.pw_uid, nobody.pw_gid)


def suits_postgres() -> bool:
    """Whether PostgreSQL runs as the user that this process is."""
    return os.geteuid() != 0 and os.geteuid() in (entry.pw_uid for entry in pwd.getpwall())


def other_identity() -> tuple[int, int]:
    """A user and a group as which PostgreSQL runs: one with a name, and not root."""
    users = [(entry.pw_uid, entry.pw_gid) for entry in pwd.getpwall() if entry.pw_uid != 0]
    return min(users, key=lambda user: (user[0] < 1000, user), default=(1000, 1000))


def become_in_namespace(identity: tuple[int, int]) -> None:
    """In a new child, before exec: enter a user namespace in which this user is seen as `identity`."""
    uid, gid = os.geteuid(), os.getegid()  # afterwards they are unknown
    if _libc.unshare(_CLONE_NEWUSER) != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
    seen_uid, seen_gid = identity
    maps = {"setgroups": "deny", "uid_map": f"{seen_uid} {uid} 1", "gid_map": f"{seen_gid} {gid} 1"}
    for name, text in maps.items():
        Path(f"/proc/self/{name}").write_text(text, "utf-8")


def namespaces_work() -> bool:
    """Whether this user may make a user namespace; tried in a child."""
    if sys.platform != "linux":
        return False
    identity = other_identity()
    child = os.fork()
    if child == 0:
        try:
            become_in_namespace(identity)
            os._exit(0)
        except OSError:
            os._exit(1)
    return os.waitpid(child, 0)[1] == 0


def _require_way_to(data_dir: Path, name: str) -> None:
    closed = [folder for folder in data_dir.parents if not folder.stat().st_mode & 0o001]
    if closed:
        raise StartError(
            f"PostgreSQL does not run as root, and as {name} it cannot enter {closed[0]}, where the data "
            f"directory {data_dir} lies. Set BANSHEE_DATA_DIR to a folder outside of it, or run as an ordinary "
            "user, or set REDIS_URL and DATABASE_URL to servers of your own."
        )


def _hand_over(data_dir: Path, uid: int, gid: int) -> None:
    # The directory itself comes last: until it is another's, the next start begins this anew.
    for folder, folders, files in os.walk(data_dir, topdown=False):
        for name in (*folders, *files):
            os.chown(Path(folder, name), uid, gid, follow_symlinks=False)
    os.chown(data_dir, uid, gid)


def _become(uid: int, gid: int) -> None:
    os.setgroups([])
    os.setresgid(gid, gid, gid)
    os.setresuid(uid, uid, uid)
