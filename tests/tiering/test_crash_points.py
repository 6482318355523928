"""A process is killed at every place between two durable writes; whoever comes after it finds all that it was told.

The places are the failpoints of the source. Each is reached by one of the deeds in `tests.crashes.deeds`: which, a run
of all of them tells; one that none reaches fails here by its name.
"""

from __future__ import annotations

import json
import signal
from collections.abc import Iterator
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any, NamedTuple
from uuid import UUID, uuid4

import pytest

from banshee_memory import MemoryPlugin
from banshee_memory.cold import migrate as migrations
from banshee_memory.cold import reads
from banshee_memory.cold.client import ColdStore
from tests.crashes.deeds import DEEDS, SETTINGS, migrate_fresh, serve_as_daemon
from tests.crashes.diary import Told, assert_whole, everything, told
from tests.crashes.forks import Forks, Job, forks
from tests.failpoints import failpoints
from tests.own_servers import empty_database, own_database, own_redis

MOST_TIMES = 3
OFTEN_KILLED = {"flush.read", "flush.written", "flush.committed", "rehydrate.history_asked", "evict.flushed"}


class Scene(NamedTuple):
    """Servers, who works on them, and what each deed reaches."""

    urls: tuple[str, str]
    memory: MemoryPlugin
    forks: Forks
    folder: Path
    reached: dict[str, dict[str, int]]
    rivals: int = 0
    """How many do the same at the same time, where no daemon does."""

    def job(self, deed: str, **more: Any) -> Job:
        """A job for a new agent."""
        agent = str(uuid4())
        diary = str(self.folder / f"{agent}.diary")
        return {"deed": deed, "urls": self.urls, "agent": agent, "diary": diary, **more}

    def deed_for(self, point: str) -> str:
        """The deed that reaches that failpoint most often: there are some that do only once in the life of a server."""
        deed = max(self.reached, key=lambda name: self.reached[name].get(point, 0))
        if point in self.reached[deed]:
            return deed
        pytest.fail(f"nobody reaches the failpoint {point!r}: place a deed for it in tests/crashes/deeds.py")


@pytest.fixture(scope="module")
def forking() -> Iterator[Forks]:
    with forks("tests.crashes.deeds") as process:
        yield process


@pytest.fixture(scope="module")
def alone(
    forking: Forks, redis_url: str, database_url: str, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Scene]:
    """Nobody else works on these servers."""
    folder = tmp_path_factory.mktemp("alone")
    with (
        own_redis(like=redis_url) as redis,
        own_database(database_url, SETTINGS) as database,
        MemoryPlugin(database, redis, settings=SETTINGS) as memory,
    ):
        scene = Scene((redis, database), memory, forking, folder, {})
        scene.reached.update({deed: _survey(scene, deed, database_url) for deed in DEEDS})
        yield scene


@pytest.fixture(scope="module")
def beside(
    alone: Scene, redis_url: str, database_url: str, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Scene]:
    """Two daemons work on these servers, in processes of their own."""
    folder = tmp_path_factory.mktemp("beside")
    with (
        own_redis(like=redis_url) as redis,
        own_database(database_url, SETTINGS) as database,
        MemoryPlugin(database, redis, settings=SETTINGS) as memory,
    ):
        scene = alone._replace(urls=(redis, database), memory=memory, folder=folder, rivals=2)
        daemons = [scene.forks.start(scene.job(serve_as_daemon.__name__)) for _ in range(2)]
        yield scene
        assert [scene.forks.stop(daemon) for daemon in daemons] == [0, 0]


def _survey(scene: Scene, deed: str, database_url: str) -> dict[str, int]:
    """How often a deed reaches which failpoint where nobody dies."""
    with _fresh(deed, database_url) as fresh:
        job = scene.job(deed, fresh=fresh)
        assert scene.forks.end_of(scene.forks.start(job)) == 0, _why(job)
    reached: dict[str, int] = json.loads(Path(job["diary"]).with_suffix(".reached").read_text())
    return reached


def _why(job: Job) -> str:
    error = Path(job["diary"]).with_suffix(".error")
    return error.read_text() if error.exists() else f"{job['deed']} never reached {job.get('point')}"


def test_no_failpoint_is_forgotten(alone: Scene) -> None:
    for point in failpoints():
        assert alone.deed_for(point)


@pytest.mark.parametrize("point", failpoints())
def test_killed_alone(alone: Scene, database_url: str, point: str) -> None:
    _kill_and_heal(alone, database_url, point, 1)


@pytest.mark.parametrize(
    "point", [pytest.param(p, marks=() if p in OFTEN_KILLED else pytest.mark.soak) for p in failpoints()]
)
def test_killed_beside_two_daemons(beside: Scene, database_url: str, point: str) -> None:
    _kill_and_heal(beside, database_url, point, 1)


@pytest.mark.soak
@pytest.mark.parametrize("nth", range(2, MOST_TIMES + 1))
@pytest.mark.parametrize("scene_name", ["alone", "beside"])
@pytest.mark.parametrize("point", failpoints())
def test_killed_later(request: pytest.FixtureRequest, database_url: str, point: str, scene_name: str, nth: int) -> None:
    _kill_and_heal(request.getfixturevalue(scene_name), database_url, point, nth)


def _kill_and_heal(scene: Scene, database_url: str, point: str, nth: int) -> None:
    deed = scene.deed_for(point)
    if nth > 1 == scene.reached[deed][point]:
        pytest.skip("reached but once in the life of a database")
    with _fresh(deed, database_url) as fresh:
        job = scene.job(deed, point=point, nth=nth, fresh=fresh)
        victim = scene.forks.start(job)
        rivals = [scene.forks.start(scene.job(deed, fresh=fresh)) for _ in range(scene.rivals if fresh else 0)]
        ended = scene.forks.end_of(victim)
        # Where rivals were faster, there was nothing left to die at.
        assert ended == -signal.SIGKILL or (rivals and ended == 0), _why(job)
        assert [scene.forks.end_of(rival) for rival in rivals] == [0] * len(rivals)
        if fresh:
            _assert_migrates(fresh)
        _assert_healed(scene, job)


def _end_sessions(memory: MemoryPlugin, agent: UUID, begun: Told) -> None:
    """Whoever calls again what a dead process had called begins no second session, and counts to the same end."""
    for number in range(begun.begun):
        session = memory.sessions.start_session(agent, idempotency_key=f"session {number}")
        memory.sessions.end_session(agent, session.id)
    sessions = memory.sessions.get_sessions(agent)
    assert len(sessions) == begun.begun
    before = 1
    said = memory.conversations.get_conversation_stats(agent).total_messages - before
    assert sum(session.total_messages for session in sessions) == said


def _fresh(deed: str, database_url: str) -> AbstractContextManager[str]:
    """An empty database for who migrates one."""
    return empty_database(database_url) if deed == migrate_fresh.__name__ else nullcontext("")


def _assert_migrates(database_url: str) -> None:
    migrations.migrate(database_url, SETTINGS)
    assert migrations.migrate(database_url, SETTINGS) == []
    cold = ColdStore(database_url, SETTINGS)
    assert cold.fetch(reads.shard_stamps()) == [(shard, 0) for shard in range(SETTINGS.shards)]
    cold.close()


def _assert_healed(scene: Scene, job: Job) -> None:
    """Whoever reads sees all of it at once, and after the next flush, and when Redis has let go of it."""
    memory, diary = scene.memory, told(Path(job["diary"]))
    agent = UUID(job["agent"])
    if "session" in diary:
        _end_sessions(memory, agent, diary["session"])
    before = everything(memory, agent)
    assert_whole(before, diary)
    memory.flush(agent)
    assert everything(memory, agent) == before, "after a flush"
    assert memory.evict(agent).kept == 0
    cold = everything(memory, agent)
    assert cold == before, "cold"
    memory.rehydrate(agent)
    assert everything(memory, agent) == before, "rehydrated"
