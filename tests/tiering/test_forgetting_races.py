"""Whatever is on its way while an agent is forgotten brings nothing of it back, and loses nothing of its new life."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any
from uuid import UUID

import psycopg
import pytest
from psycopg.conninfo import make_conninfo

from banshee_memory import BansheeError, ColdStoreUnavailable, Emotion, HotStoreUnavailable
from banshee_memory.failpoints import armed
from banshee_memory.hot import calls
from banshee_memory.hot.calls import Call
from banshee_memory.tiering import memories, receipts
from banshee_memory.tiering.drain import Drain
from banshee_memory.tiering.forgetting import Forgetting
from banshee_memory.tiering.residency import Residency
from banshee_memory.tiering.steps import drive
from tests.failpoints import failpoints
from tests.own_servers import CLOCK
from tests.tiering.lives import HAPPENED, Life, begin, everything
from tests.tiering.test_forgetting import assert_begun_again, assert_new, begin_again, forget, traces
from tests.tiering.test_interleavings import READS, WRITES, Intrusion
from tests.tiers import IntrudedHotStore, Tiers, intruded, nothing

MOST_STEPS = 40
MOST_TRIPS = 60
FORGETTING = [name for name in failpoints() if name.startswith("forget.")]
BEFORE = {"forget.locked", "forget.tombstoned", "forget.memories_dropped"}
"""Where the old life goes on: what is written there goes with it."""


class DeathError(Exception):
    """What a killed process raises here."""


@pytest.fixture(autouse=True)
def few_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """So that several calls are needed where a small life would take one."""
    monkeypatch.setattr("banshee_memory.hot.erasing.MOST_MEMBERS", 2)
    monkeypatch.setattr("banshee_memory.cold.erasure._CHUNK", 3)


@pytest.fixture(scope="module")
def intruded_hot(own_urls: tuple[str, str], tiers: Tiers) -> Iterator[IntrudedHotStore]:
    hot = IntrudedHotStore(own_urls[0], tiers.settings, clock=CLOCK)
    yield hot
    hot.close()


def at_point(point: str, action: Callable[[], object]) -> Any:
    """Does something at a failpoint, the first time that it is reached."""
    done: list[str] = []

    def reach(name: str) -> None:
        if name == point and not done:
            done.append(name)
            action()

    return armed(reach)


def assert_nothing_old(tiers: Tiers, life: Life) -> None:
    """Of the life that `begin` gives nothing is to be seen, whatever else is."""
    assert not {m.content for m in tiers.conversations.get_history(life.agent, 100)} & set(life.texts)
    assert not {m.content for m in tiers.conversations.search_messages(life.agent, "number")} & set(life.texts)
    assert tiers.conversations.get_conversation_stats(life.agent).total_messages <= 2
    assert len(tiers.emotions.get_event_history(life.agent)) <= 1
    state = tiers.emotions.load_state(life.agent)
    assert state is None or Emotion.JOY not in state.emotions
    known = tiers.memories.get_memories_by_type(life.agent, "fact")
    assert not {memory.data for memory in known} & {0, "one", 2}
    assert all(memory.access_count == 0 and memory.created_at == memory.updated_at for memory in known)


OPERATIONS: dict[str, Callable[[Tiers, Life], object]] = {
    **{f"read {name}": read for name, (read, _) in READS.items()},
    **{f"write {name}": write for name, (write, _, _) in WRITES.items()},
    "rehydrate": lambda tiers, life: tiers.rehydrate(life.agent),
    "evict": lambda tiers, life: tiers.drop(life.agent),
}
_TELLING = {"read newest 9", "read get_memory", "write amend a message", "write replace a memory"}
CASES = [
    pytest.param(name, place, marks=() if place == "cold" and name in _TELLING else pytest.mark.soak)
    for name in OPERATIONS
    for place in ("hot", "clean", "half", "cold")
]


@pytest.mark.parametrize(("name", "placement"), CASES)
def test_what_was_under_way_brings_nothing_back(tiers: Tiers, intruder: Tiers, name: str, placement: str) -> None:
    for at in range(MOST_STEPS):
        life = begin(tiers, placement)
        intrusion = Intrusion(at, lambda agent=life.agent: forget(intruder, agent))  # type: ignore[misc]
        with intrusion.into(tiers), suppress(BansheeError):
            OPERATIONS[name](tiers, life)
        if not intrusion.happened:
            break
        for moved in (lambda agent: None, tiers.drop, tiers.evict):
            moved(life.agent)
            assert_nothing_old(tiers, life)
    assert 0 < at < MOST_STEPS - 1


@pytest.mark.parametrize("name", ["end", pytest.param("start and end", marks=pytest.mark.soak)])
def test_a_session_under_way_does_not_come_back(tiers: Tiers, intruder: Tiers, name: str) -> None:
    for at in range(MOST_STEPS):
        life = begin(tiers, "cold")
        session = tiers.sessions.start_session(life.agent, {"secret": 1})
        tiers.evict(life.agent)
        intrusion = Intrusion(at, lambda agent=life.agent: forget(intruder, agent))  # type: ignore[misc]
        with intrusion.into(tiers), suppress(BansheeError):
            if name != "end":
                tiers.sessions.start_session(life.agent, {"secret": 2})
            tiers.sessions.end_session(life.agent, session.id)
        if not intrusion.happened:
            break
        assert all(s.session_metadata == {"secret": 2} for s in tiers.sessions.get_sessions(life.agent))
    assert 3 < at < MOST_STEPS - 1


def forget_with(tiers: Tiers, hot: IntrudedHotStore, agent: UUID, at: int, action: Callable[[], object]) -> bool:
    """Forgets, and before round trip number `at` acts; False if there were fewer."""
    hot.trips, hot.at, hot.action = 0, at, action
    try:
        Forgetting(tiers.settings, hot, tiers.cold).forget(agent)
    finally:
        hot.at = -1
    return hot.trips > at


@pytest.mark.parametrize("placement", ["half", pytest.param("cold", marks=pytest.mark.soak)])
def test_a_life_that_begins_meanwhile_is_whole_or_not_there(
    tiers: Tiers, intruder: Tiers, intruded_hot: IntrudedHotStore, placement: str
) -> None:
    lived = []
    for at in range(MOST_TRIPS):
        life = begin(tiers, placement)
        if not forget_with(tiers, intruded_hot, life.agent, at, lambda a=life.agent: begin_again(intruder, a)):  # type: ignore[misc]
            break
        lived.append(tiers.emotions.load_state(life.agent) is not None)
        for moved in (lambda agent: None, tiers.evict):
            moved(life.agent)
            (assert_begun_again if lived[-1] else assert_new)(tiers, life.agent)
    # There is one moment between the two lives.
    assert lived == sorted(lived)
    assert {False, True} == set(lived)
    assert at < MOST_TRIPS - 1


MEANWHILE: dict[str, Callable[[Tiers, UUID], object]] = {
    "reads": lambda tiers, agent: tiers.rehydrate(agent),
    "drops": lambda tiers, agent: tiers.drop(agent),
    "sweeps": lambda tiers, agent: Drain(tiers.settings, tiers.hot, tiers.cold).sweep(),
}


@pytest.mark.parametrize(
    ("meanwhile", "placement"),
    [
        pytest.param(name, place, marks=() if (name, place) == ("reads", "half") else pytest.mark.soak)
        for name in MEANWHILE
        for place in ("half", "cold")
    ],
)
def test_nothing_that_moves_it_meanwhile_keeps_any_of_it(
    tiers: Tiers,
    intruder: Tiers,
    intruded_hot: IntrudedHotStore,
    own_urls: tuple[str, str],
    meanwhile: str,
    placement: str,
) -> None:
    tiers.flush()
    tiers.hot.run(Call(("FLUSHDB",), bytes))  # what others left there takes time to look through
    for at in range(MOST_TRIPS):
        life = begin(tiers, placement)
        more = forget_with(tiers, intruded_hot, life.agent, at, lambda a=life.agent: MEANWHILE[meanwhile](intruder, a))  # type: ignore[misc]
        assert_new(tiers, life.agent)
        tiers.drop(life.agent)
        assert traces(tiers, own_urls, life.agent) == []
        if not more:
            break
    assert at < MOST_TRIPS - 1


@pytest.mark.parametrize("point", FORGETTING)
def test_who_dies_anywhere_has_done_nothing_or_left_a_tombstone(
    tiers: Tiers, intruder: Tiers, own_urls: tuple[str, str], point: str
) -> None:
    def die() -> None:
        raise DeathError

    life, other = begin(tiers, "half"), begin(tiers, "half")
    for key in ("a", "b", "c"):
        tiers.memories.store_memory(life.agent, "fact", key, key)
    with at_point(point, die), pytest.raises(DeathError):
        forget(tiers, life.agent)
    cold = [m.content for m in tiers.conversations.get_history(life.agent, 100)]
    if point == "forget.locked":
        assert cold == life.texts
    else:
        assert not set(cold) & set(life.texts[:5]), "what PostgreSQL had is to be seen under a tombstone"
    intruder.flush()
    begin_again(intruder, life.agent)
    if point not in BEFORE | {"forget.keys_dropped", "forget.tombstone_raised"}:
        intruder.evict(life.agent)
        assert_begun_again(intruder, life.agent)
    assert forget(intruder, life.agent).left == 0
    assert traces(tiers, own_urls, life.agent) == []
    assert [m.content for m in tiers.conversations.get_history(other.agent)] == other.texts


@pytest.mark.parametrize("point", [name for name in failpoints() if name.startswith("flush.")])
def test_a_flush_under_way_carries_nothing_over(
    tiers: Tiers, intruder: Tiers, own_urls: tuple[str, str], point: str
) -> None:
    life, other = begin(tiers, "half"), begin(tiers, "hot")
    began = threading.Event()
    with ThreadPoolExecutor(1) as pool:

        def start() -> None:
            future.append(pool.submit(begun))
            began.wait()

        def begun() -> None:
            began.set()
            forget(intruder, life.agent)

        future: list[Any] = []
        with at_point(point, start):
            tiers.flush(life.agent)
        for forgotten in future:
            forgotten.result()
    assert traces(tiers, own_urls, life.agent) == ([] if future else traces(tiers, own_urls, life.agent))
    if future:
        assert_new(tiers, life.agent)
    tiers.flush()
    assert [m.content for m in tiers.conversations.get_history(other.agent)] == other.texts


@pytest.mark.parametrize("store", ["Redis", "PostgreSQL"])
def test_a_store_that_is_not_there_leaves_all_as_it_was(
    tiers: Tiers, own_urls: tuple[str, str], tmp_path: Path, store: str
) -> None:
    life = begin(tiers, "half")
    known = everything(tiers, life.agent)
    redis, database = own_urls
    urls = {"Redis": (f"unix://{tmp_path}/nobody", database), "PostgreSQL": (redis, f"postgresql:///x?host={tmp_path}")}
    away = Tiers(*urls[store], tiers.settings, clock=CLOCK)
    with pytest.raises(HotStoreUnavailable if store == "Redis" else ColdStoreUnavailable):
        forget(away, life.agent)
    away.close()
    assert everything(tiers, life.agent) == known


@pytest.mark.parametrize("store", ["Redis", "PostgreSQL"])
def test_a_store_that_goes_away_meanwhile_is_an_error_and_a_retry_ends_it(
    tiers: Tiers, intruded_hot: IntrudedHotStore, own_urls: tuple[str, str], store: str
) -> None:
    redis, database = own_urls
    named = Tiers(redis, make_conninfo(database, application_name="goes away"), tiers.settings, clock=CLOCK)
    intruded_cold = named.cold

    def go() -> None:
        if store == "Redis":
            raise HotStoreUnavailable("gone")
        with psycopg.connect(database, autocommit=True) as connection:
            connection.execute(
                "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity WHERE application_name = 'goes away'"
            )

    told = 0
    for at in range(0, MOST_TRIPS, 1 if store == "Redis" else 3):
        life = begin(tiers, "half")
        intruded_hot.trips, intruded_hot.at, intruded_hot.action = 0, at, go
        try:
            report = Forgetting(tiers.settings, intruded_hot, intruded_cold).forget(life.agent)
            assert report.left == 0
        except (HotStoreUnavailable, ColdStoreUnavailable):
            told += 1
        finally:
            intruded_hot.at = -1
        assert forget(tiers, life.agent).left == 0
        assert_new(tiers, life.agent)
        if intruded_hot.trips <= at:
            break
    assert told > (10 if store == "Redis" else 0)
    named.close()


def test_a_lease_under_a_name_that_nobody_knows_installs_nothing(tiers: Tiers, intruder: Tiers) -> None:
    """Its reader asked PostgreSQL before the tombstone, after forgetting looked for memories; and is slow."""
    for point in (name for name in FORGETTING if name not in BEFORE):
        life = begin(tiers, "cold")
        reader = SlowReader(intruder, life.agent)

        def reach(name: str, reader: SlowReader = reader, point: str = point) -> None:
            if name == "forget.locked":
                reader.ask()
            elif name == point and not reader.replies:
                reader.offer()

        with armed(reach):
            forget(tiers, life.agent)
        assert reader.replies == [False], point
        assert intruder.memories.get_memory(life.agent, "fact", "k1") is None


class SlowReader:
    """Rehydrates a memory, in two parts."""

    def __init__(self, tiers: Tiers, agent: UUID) -> None:
        self.replies: list[bool] = []
        self._tiers = tiers
        self._steps: Any = memories.rehydrate(Residency(tiers.settings), tiers.keys(agent), "fact", "k1")
        self._offer: Any = None

    def ask(self) -> None:
        """Takes the lease and asks PostgreSQL, which knows it."""
        hot = self._tiers.hot
        now = hot.run(next(self._steps))
        token = hot.run(self._steps.send(now))
        stored = self._tiers.cold.fetch(self._steps.send(token))
        assert stored is not None
        self._offer = self._steps.send(stored)

    def offer(self) -> None:
        """Offers what it said."""
        self.replies.append(self._tiers.hot.run(self._offer))


def test_memories_are_found_without_their_index(tiers: Tiers, own_urls: tuple[str, str]) -> None:
    """Redis evicts keys one by one: the index of an agent may go before what it names."""
    life = begin(tiers, "clean")
    tiers.memories.store_memory(life.agent, "scratch", "volatile", 1, ttl_seconds=60)
    keys = tiers.keys(life.agent)
    assert tiers.hot.run(Call(("DEL", keys.memories), int)) == 1
    assert tiers.memories.get_memory(life.agent, "scratch", "volatile") is not None
    forget(tiers, life.agent)
    assert traces(tiers, own_urls, life.agent) == []


def test_two_forget_at_once(tiers: Tiers, intruder: Tiers, own_urls: tuple[str, str]) -> None:
    for placement in ("half", "cold"):
        life = begin(tiers, placement)
        with ThreadPoolExecutor(2) as pool:
            reports = list(pool.map(lambda client: forget(client, life.agent), (tiers, intruder)))  # noqa: B023
        assert [report.left for report in reports] == [0, 0]
        assert traces(tiers, own_urls, life.agent) == []
        assert sum(report.messages for report in reports) == (5 if placement == "half" else 8)


class Replica:
    """What a replica that lags has when it is promoted: what was there when this was made."""

    def __init__(self, tiers: Tiers) -> None:
        self._tiers = tiers
        self._keys = {key: self._command("DUMP", key) for key in tiers.hot.keys("*")}
        self._ttls = {key: self._command("PTTL", key) for key in self._keys}

    def promote(self) -> None:
        """It takes the place of the server."""
        logs = {key: self._last(key) for key in self._keys if key.endswith(b":log")}
        self._command("FLUSHDB")
        for key, dump in self._keys.items():
            self._command("RESTORE", key, max(self._ttls[key], 0), dump)
        # A log that other tests left ahead of the clock would give out once more what it gave out since.
        for key, last in logs.items():
            self._command("XSETID", key, last)

    def _last(self, log: bytes) -> bytes:
        told = self._command("XINFO", "STREAM", log)
        return bytes(dict(zip(told[::2], told[1::2], strict=True))[b"last-generated-id"])

    def _command(self, *words: Any) -> Any:
        return self._tiers.hot.run(Call(words, lambda reply: reply))


def test_a_promoted_replica_brings_nothing_unflushed_back(tiers: Tiers, own_urls: tuple[str, str]) -> None:
    tiers.flush()
    life = begin(tiers, "hot")
    tiers.memories.retrieve_memory(life.agent, "fact", "k0")
    tiers.conversations.update_emotional_context(life.agent, life.ids[0], {"joy": 1.0})
    replica = Replica(tiers)
    forget(tiers, life.agent)
    replica.promote()
    report = tiers.flush(life.agent)
    assert report.records == 0
    assert report.forgotten > 16
    assert_new(tiers, life.agent)
    begin_again(tiers, life.agent)
    tiers.evict(life.agent)
    assert_begun_again(tiers, life.agent)
    assert forget(tiers, life.agent).left == 0
    assert traces(tiers, own_urls, life.agent) == []


def test_a_life_begun_on_a_promoted_replica_loses_only_what_is_old(tiers: Tiers) -> None:
    """The lists there hold both: what was forgotten, and what was written since."""
    tiers.flush()
    life = begin(tiers, "hot")
    replica = Replica(tiers)
    forget(tiers, life.agent)
    replica.promote()
    for text in ("new one", "new two"):
        tiers.conversations.save_message(life.agent, "user", text)
    tiers.emotions.save_event(life.agent, HAPPENED, {Emotion.FEAR: 0.5}, mode="record")
    tiers.flush(life.agent)
    for moved in (lambda agent: None, tiers.evict):
        moved(life.agent)
        assert [m.content for m in tiers.conversations.get_history(life.agent)] == ["new one", "new two"]
        assert len(tiers.emotions.get_event_history(life.agent)) == 1
        assert tiers.conversations.get_conversation_stats(life.agent).total_messages == 2
        assert tiers.memories.get_memories_by_type(life.agent, "fact") == []


def test_a_dead_letter_that_a_replica_brought_back_is_not_retried(tiers: Tiers, agent: UUID) -> None:
    tiers.flush()
    body = b"\x93\xc4\x08abcdefgh\xa4user\xa1\xff"
    tiers.hot.run(calls.append_messages(tiers.keys(agent), [(None, False, body)]))
    tiers.flush(agent)
    [letter] = tiers.dead_letters.find(agent)
    replica = Replica(tiers)
    assert forget(tiers, agent).dead_letters == 1
    assert tiers.dead_letters.find(agent) == []
    replica.promote()
    assert tiers.dead_letters.retry([letter]) == 0
    assert tiers.hot.run(calls.whole_history(tiers.keys(agent).messages)).elements == []
    assert tiers.dead_letters.drop([letter]) == 1


@pytest.mark.parametrize("loss", ["lags", "is empty"])
def test_stamps_of_the_new_life_lie_after_the_tombstone(
    tiers: Tiers, own_urls: tuple[str, str], agent: UUID, loss: str
) -> None:
    """Also on a server whose clock is behind that of the one before it."""
    tiers.flush()
    tiers.conversations.save_message(agent, "user", "old")
    tiers.evict(agent)
    forget(tiers, agent)
    with psycopg.connect(own_urls[1]) as connection:
        connection.execute(
            "UPDATE forgotten SET stamp = stamp + (86400000::bigint << 16) WHERE agent_id = %s", (agent,)
        )
    if loss == "is empty":
        tiers.hot.run(Call(("FLUSHDB",), bytes))
    else:
        forget(tiers, agent)
    begin_again(tiers, agent)
    assert tiers.flush(agent).forgotten == 0
    tiers.evict(agent)
    assert_begun_again(tiers, agent)
    tiers.hot.run(Call(("FLUSHDB",), bytes))


def test_bytes_that_mean_something_in_a_pattern_mean_themselves(tiers: Tiers) -> None:
    shard = b"\0\0\0\1"
    special, other = UUID(bytes=b"*?[a]^-\\*???" + shard), UUID(bytes=b"*?a^-\\xyz..." + shard)
    tail, plain = UUID(bytes=b"]" * 12 + shard), UUID(bytes=b"[b" * 6 + shard)
    every = [special, other, tail, plain]
    for agent in every:
        tiers.emotions.update_emotions(agent, {Emotion.JOY: 0.5}, idempotency_key="k")
        tiers.memories.store_memory(agent, "fact", "[a-z]*?", 1)
        tiers.flush()
        tiers.memories.retrieve_memory(agent, "fact", "[a-z]*?")
    for agent in every:
        report = forget(tiers, agent)
        assert (report.idempotency_keys, report.left) == (2, 0)  # in Redis, and with the flush in PostgreSQL


def test_a_retry_of_the_old_life_is_a_write_of_the_new_one(tiers: Tiers, agent: UUID) -> None:
    first = tiers.conversations.save_message(agent, "user", "once", idempotency_key="one")
    assert tiers.conversations.save_message(agent, "user", "once", idempotency_key="one") == first
    forget(tiers, agent)
    again = tiers.conversations.save_message(agent, "user", "once", idempotency_key="one")
    assert again != first
    assert tiers.conversations.save_message(agent, "user", "once", idempotency_key="one") == again
    assert [m.id for m in tiers.conversations.get_history(agent)] == [again]


def test_who_waits_for_what_was_forgotten_sees_it_done(tiers: Tiers, agent: UUID) -> None:
    """And who waits for another's of the same shard, whose stamps lie before it."""
    tiers.flush()
    neighbour = UUID(int=agent.int ^ 1 << 64)
    tiers.conversations.save_message(neighbour, "user", "before")
    tiers.conversations.save_message(agent, "user", "forgotten")
    given = drive(receipts.receipt(tiers.keys(neighbour)), tiers.hot, tiers.cold)
    forget(tiers, agent)
    tiers.flush(neighbour)
    drive(receipts.wait_cold(given, 0), tiers.hot, tiers.cold)


def test_a_slow_amendment_brings_no_message_back(tiers: Tiers, intruder: Tiers) -> None:
    life = begin(tiers, "cold")
    tiers.between = lambda steps: intruded(steps, 2, lambda: forget(intruder, life.agent))
    try:
        amended = tiers.conversations.update_emotional_context(life.agent, life.ids[1], {"pity": 1.0})
    finally:
        tiers.between = nothing
    assert amended is False
    assert_new(tiers, life.agent)
