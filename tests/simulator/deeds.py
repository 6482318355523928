"""What clients do: an operation's steps, what a step that is carried out makes of the model, what its end must say."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from random import Random
from typing import Any

from banshee_memory import (
    ConversationMessage,
    ConversationStats,
    CustomEvent,
    Durability,
    Emotion,
    EmotionalEventRecord,
    EmotionalState,
    NewMessage,
    TrendPoint,
)
from banshee_memory.hot.calls import MISS, Call
from banshee_memory.operations import AnyOperation, Operations
from banshee_memory.records import FlushReport, StoredMemory
from banshee_memory.records import known as known_of
from banshee_memory.stamps import from_us, stamp_in_id, stamp_us, to_us
from tests.simulator.life import Life, Name, number_of
from tests.simulator.retention import EVENT_DAYS, MESSAGE_DAYS
from tests.simulator.sessions import Made, Sessions
from tests.tiering.comparing import check_event, check_memory, check_messages, close
from tests.tiering.model import Happened, Said

EMOTIONS = (Emotion.JOY, Emotion.FEAR, Emotion.LOVE)
LASTING = (("fact", "a"), ("fact", "b"), ("goal", "c"))
BRIEF = ("fact", "brief")
ALL = 1_000
A_YEAR = 24 * 365.0
"""In hours."""
SOON = timedelta(minutes=1)
"""What happened so long before it is told is hardly late; what has so long to go is almost beyond retention."""


@dataclass
class Deed:
    """One operation of one client on one agent."""

    name: str
    life: Life
    operation: Callable[[], AnyOperation[Any]]
    carried_out: dict[str, Callable[[Any], None]] = field(default_factory=dict)
    """By function: what the model makes of its reply."""
    ended: Callable[[Any], None] = lambda result: None
    key: str | None = None
    is_blind: bool = False
    """Whether what was there before could not be asked for."""
    began: int = 0
    began_felt: int = 0
    epoch: int = 0

    def start(self) -> AnyOperation[Any]:
        """Its steps, from the beginning."""
        self.epoch = self.life.epoch
        self.began, self.began_felt = self.life.changes, self.life.felt_changes
        return self.operation()

    def do(self, call: Call[Any], reply: Any) -> None:
        """A function was carried out for it, whether or not its reply came through."""
        act = self.carried_out.get(str(call.command[1]).partition("_")[2])
        if act is None or reply is MISS:
            return
        if self.key is not None:
            if self.key in self.life.keyed:
                return
            self.life.keyed.add(self.key)
        self.is_blind = "blind" in call.command
        act(reply)

    def end(self, result: Any) -> None:
        """It was told its result, which means something unless a failover came between."""
        if self.epoch == self.life.epoch:
            self.ended(result)

    @property
    def is_undisturbed(self) -> bool:
        """Whether nothing was written to the agent since it began."""
        return self.life.changes == self.began


class Deeds:
    """All that clients do, at random."""

    def __init__(
        self, operations: Operations, random: Random, clock: Callable[[], int], levels: Sequence[Durability]
    ) -> None:
        self._operations = operations
        self._random = random
        self._clock = clock
        self._levels = levels
        self._sessions = Sessions(operations, random, clock)

    def any(self, life: Life) -> Deed:
        """One of them."""
        kinds: list[tuple[Callable[[Life], Deed], int]] = [
            (self.say, 12),
            (self.happen, 6),
            (self.feel, 8),
            (self.save_state, 2),
            (self.store, 8),
            (self.store_briefly, 3),
            (self.delete, 5),
            (self.retrieve, 4),
            (self.amend, 4),
            (self.history, 7),
            (self.page_back, 3),
            (self.events, 3),
            (self.totals, 4),
            (self.trends, 2),
            (self.search, 2),
            (self.load_state, 5),
            (self.get, 5),
            (self.list_memories, 3),
            (self.rehydrate, 4),
            (lambda life: _made(life, self._sessions.start(life)), 3),
            (lambda life: _made(life, self._sessions.end(life)), 3),
        ]
        (make,) = self._random.choices([kind for kind, _ in kinds], [weight for _, weight in kinds])
        return make(life)

    # --- writes ---

    def say(self, life: Life) -> Deed:
        random, now = self._random, self._clock()
        felt, old = random.random() < 0.2, random.random() < 0.25
        texts = [f"word {life.label} {life.number()}" for _ in range(random.choice((1, 1, 1, 2, 5)))]
        ago = self._ago(MESSAGE_DAYS)
        batch = [
            NewMessage(
                role="user",
                content=text,
                tokens_used=2,
                emotional_context="current" if felt else None,
                created_at=from_us(now) - ago if old else None,
            )
            for text in texts
        ]
        key = self._key(life)

        def carried_out(ids: Any) -> None:
            context = {e.value: i for e, i in life.model.feels(self._clock()).items()} if felt else None
            for text, message in zip(texts, ids, strict=True):
                at = to_us(from_us(now) - ago) if old else stamp_us(stamp_in_id(message.bytes))
                life.say(at, text, 2, context)

        def ended(ids: Any) -> None:
            for text, message in zip(texts, ids, strict=True):
                said = life.said(text)
                assert said.id in (message, type(message)(int=0)), "two ids for one message"
                said.id = message

        level = random.choice(self._levels) if random.random() < 0.2 else None
        operation = lambda: self._operations.save_messages(life.id, batch, level, key)  # noqa: E731
        return Deed("say", life, operation, {"append_messages": carried_out}, ended, key)

    def happen(self, life: Life) -> Deed:
        random, number, now = self._random, life.number(), self._clock()
        event = CustomEvent(event_type="happened", data={"n": number})
        mode: Any = random.choice(("set", "add", "record"))
        named = {random.choice(EMOTIONS): random.choice((0.25, 0.5, 1.0))}
        occurred = from_us(now) - self._ago(EVENT_DAYS) if random.random() < 0.5 else None
        key = self._key(life)

        def carried_out(settled: Any) -> None:
            now = self._clock()
            at = now if occurred is None else to_us(occurred)
            happened = life.model.happen(event, named, mode, at, to_us(settled.placed.record.occurred_at), now)
            assert occurred in (None, settled.placed.record.occurred_at)
            life.wrote(felt=mode != "record")
            life.let_go_of_sessions()
            check_event(settled.placed.record, happened)

        def operation() -> AnyOperation[Any]:
            return self._operations.save_event(life.id, event, named, mode, occurred, None, None, None, key)

        return Deed("happen", life, operation, {"save_event": carried_out}, key=key)

    def feel(self, life: Life) -> Deed:
        random = self._random
        mode = random.choice(("add", "add", "set"))
        changes = {e: random.choice((0.125, 0.25, 0.0)) for e in random.sample(EMOTIONS, 2)}
        key = self._key(life)

        def carried_out(state: EmotionalState) -> None:
            now = self._clock()
            life.model.change(changes, mode, now, now)
            life.wrote(felt=True)
            assert close(state.emotions, life.model.feels(now)), (state.emotions, life.model.feels(now))

        operation = lambda: self._operations.update_emotions(life.id, changes, mode, None, key)  # noqa: E731
        return Deed("feel", life, operation, {"update_emotions": carried_out}, key=key)

    def save_state(self, life: Life) -> Deed:
        random, now = self._random, self._clock()
        felt = {e: random.choice((0.5, 1.0)) for e in random.sample(EMOTIONS, 2)}
        rates = {random.choice(EMOTIONS): random.choice((0.0, 0.5, 1e-6))}
        state = EmotionalState(felt, rates, from_us(now))

        def carried_out(_: Any) -> None:
            life.model.save_state(state, now, self._clock())
            life.wrote(felt=True)

        operation = lambda: self._operations.save_state(life.id, state, None)  # noqa: E731
        return Deed("save state", life, operation, {"save_state": carried_out})

    def store(self, life: Life) -> Deed:
        return self._store(life, self._random.choice(LASTING), None)

    def store_briefly(self, life: Life) -> Deed:
        return self._store(life, BRIEF, self._random.choice((1.0, 60.0, 3_600.0)))

    def _store(self, life: Life, name: Name, ttl: float | None) -> Deed:
        data, key = {"n": life.number()}, self._key(life)

        def carried_out(stored: Any) -> None:
            now = self._clock()
            known = life.model.store(name, data, ttl, 0.5, (), now)
            if deed.is_blind or not life.is_certain(name):
                record = stored.record
                known.created, known.count = to_us(record.created_at), record.access_count
                known.accessed = to_us(record.last_accessed)
            life.remember(name, known, stored.stamp)
            check_memory(stored.record, *name, known)

        def operation() -> AnyOperation[Any]:
            return self._operations.store_memory(life.id, *name, data, ttl, 0.5, (), None, key)

        deed = Deed("store", life, operation, {"store_memory": carried_out}, key=key)
        return deed

    def delete(self, life: Life) -> Deed:
        name = self._random.choice((*LASTING, BRIEF))

        def carried_out(deleted: Any) -> None:
            if life.is_certain(name):
                assert deleted is (life.model.living(name, self._clock()) is not None), f"{name} was there, or was not"
            if deleted:
                life.remember(name, None)

        operation = lambda: self._operations.delete_memory(life.id, *name, None)  # noqa: E731
        return Deed("delete", life, operation, {"delete_memory": carried_out})

    def retrieve(self, life: Life) -> Deed:
        name = self._random.choice(LASTING)

        def counted(found: Any) -> None:
            known = life.model.living(name, self._clock())
            data = known_of(found).data if isinstance(found, StoredMemory) else found
            assert data == (known and known.data)
            if known is not None:
                known.count, known.accessed = known.count + 1, self._clock()
                life.wrote()

        operation = lambda: self._operations.retrieve_memory(life.id, *name)  # noqa: E731
        return Deed("retrieve", life, operation, {"retrieve_memory": counted})

    def amend(self, life: Life) -> Deed:
        known = [message for message in life.model.messages if message.id.int]
        if not known:
            return self.say(life)
        said, context = self._random.choice(known), {"pity": self._random.random()}

        def carried_out(amended: Any) -> None:
            if amended:
                life.amend(said, context)

        def ended(amended: Any) -> None:
            assert amended or not life.lasts(said), "an acknowledged message is not there"

        operation = lambda: self._operations.update_emotional_context(life.id, said.id, context, None)  # noqa: E731
        return Deed("amend", life, operation, {"amend_message": carried_out}, ended)

    def _key(self, life: Life) -> str | None:
        return f"key {life.number()}" if self._random.random() < 0.4 else None

    def _ago(self, kept_days: int) -> timedelta:
        """How long before it is told something is: hardly, some hours, or almost all of its retention."""
        almost = timedelta(days=kept_days) - SOON
        hours = timedelta(hours=self._random.randrange(1, 24 * kept_days - 1))
        return self._random.choices((SOON, hours, almost), (2, 4, 1))[0]

    # --- reads ---

    def history(self, life: Life) -> Deed:
        limit = self._random.choice((1, 2, 3, 5, ALL))
        operation = lambda: self._operations.get_history(life.id, limit, None)  # noqa: E731
        return self._read(
            "history", life, operation, lambda deed, read, before: check_history(deed, read, before, limit)
        )

    def page_back(self, life: Life) -> Deed:
        known = [message for message in life.model.history() if message.id.int]
        if not known:
            return self.history(life)
        cursor, limit = self._random.choice(known), self._random.choice((1, 3, ALL))

        def check(deed: Deed, read: Any, before: list[str]) -> None:
            if deed.is_undisturbed:
                every = life.history({message.content for message in read})
                older = [said for said in every if (said.at, said.number) < (cursor.at, cursor.number)]
                compare_messages(read, older[-limit:])

        operation = lambda: self._operations.get_history(life.id, limit, cursor.id)  # noqa: E731
        return self._read("page back", life, operation, check)

    def events(self, life: Life) -> Deed:
        limit = self._random.choice((1, 3, ALL))

        def check(deed: Deed, read: Any, before: list[str]) -> None:
            if deed.is_undisturbed:
                compare_events(read, life.event_history(set(map(number_of, read)))[::-1][:limit])

        return self._read("events", life, lambda: self._operations.get_event_history(life.id, limit), check)

    def totals(self, life: Life) -> Deed:
        before: set[str] = set()

        def start() -> AnyOperation[ConversationStats]:
            before.update(life.messages_ever())
            return self._operations.get_conversation_stats(life.id)

        def ended(stats: ConversationStats) -> None:
            assert stats.total_messages in life.totals(before), "totals"
            assert stats.total_tokens == 2 * stats.total_messages

        return Deed("totals", life, start, ended=ended)

    def trends(self, life: Life) -> Deed:
        before: set[int] = set()

        def start() -> AnyOperation[list[TrendPoint]]:
            before.update(life.events_ever())
            return self._operations.get_emotional_trends(life.id, A_YEAR, None)

        def ended(points: list[TrendPoint]) -> None:
            assert sum(point.events for point in points) in life.total_events(before), "trends"

        return Deed("trends", life, start, ended=ended)

    def search(self, life: Life) -> Deed:
        def check(deed: Deed, found: Any, before: list[str]) -> None:
            texts = [message.content for message in found]
            assert len(texts) == len(set(texts)), "found twice"
            known = life.model.messages
            assert set(texts) <= {m.content for m in known}
            assert set(before) & {m.content for m in known if life.lasts(m)} <= set(texts)

        return self._read("search", life, lambda: self._operations.search_messages(life.id, "word", ALL), check)

    def load_state(self, life: Life) -> Deed:
        def check(deed: Deed, state: EmotionalState | None, before: list[str]) -> None:
            if deed.began_felt == life.felt_changes:
                compare_state(state, life, self._clock())

        return self._read("load state", life, lambda: self._operations.load_state(life.id), check)

    def get(self, life: Life) -> Deed:
        name = self._random.choice((*LASTING, BRIEF))

        def check(deed: Deed, record: Any, before: list[str]) -> None:
            allowed = life.data_since(name, deed.began)
            if name == BRIEF:
                allowed.append(None)
            assert (record and record.data) in allowed, f"{name} is {record and record.data}, not one of {allowed}"

        return self._read("get", life, lambda: self._operations.get_memory(life.id, *name), check)

    def list_memories(self, life: Life) -> Deed:
        began = self._clock()

        def check(deed: Deed, records: Any, before: list[str]) -> None:
            if deed.is_undisturbed and self._clock() == began:
                compare_memories(records, life, began)

        operation = lambda: self._operations.get_memories_by_type(life.id, None, ALL, 0)  # noqa: E731
        return self._read("list", life, operation, check)

    def rehydrate(self, life: Life) -> Deed:
        return Deed("rehydrate", life, lambda: self._operations.rehydrate(life.id))

    def evict(self, life: Life) -> Deed:
        """What is clean leaves Redis."""
        return Deed("evict", life, lambda: self._operations.evict(life.id, FlushReport()))

    def _read(
        self,
        name: str,
        life: Life,
        operation: Callable[[], AnyOperation[Any]],
        check: Callable[[Deed, Any, list[str]], None],
    ) -> Deed:
        before: list[str] = []

        def start() -> AnyOperation[Any]:
            before[:] = [message.content for message in life.model.history()]
            return operation()

        deed = Deed(name, life, start)
        deed.ended = lambda result: check(deed, result, before)
        return deed


def _made(life: Life, made: Made) -> Deed:
    name, operation, carried_out, ended = made
    return Deed(name, life, operation, carried_out, ended)


def check_history(deed: Deed, read: Any, before: list[str], limit: int) -> None:
    """What was there when it began is there without a gap, in order; what came since may be."""
    life = deed.life
    texts = [message.content for message in read]
    order = [message.content for message in life.model.history()]
    assert len(texts) == len(set(texts)), "a message twice"
    assert len({message.id for message in read}) == len(read), "an id twice"
    known = [text for text in order if text in set(texts)]
    assert known == texts, f"out of order, or of nobody: {texts} of {order}"
    lasting = {message.content for message in life.model.history() if life.lasts(message)}
    due = [text for text in before if text in lasting]
    old = [text for text in texts if text in set(due)]
    assert old == due[len(due) - len(old) :], f"a gap: {texts} of {due}"
    assert len(texts) == limit or (len(texts) < limit and len(old) == len(due)), "too few"


def compare_messages(read: Sequence[ConversationMessage], models: Sequence[Said]) -> None:
    """The same messages; whose client died before it was told their ids has them from here."""
    assert len(read) == len(models), f"{len(read)} messages, not {len(models)}"
    for message, said in zip(read, models, strict=True):
        if said.id.int == 0:
            said.id = message.id
    check_messages(read, models)


def compare_events(read: Sequence[EmotionalEventRecord], models: Sequence[Happened]) -> None:
    """The same events."""
    assert len(read) == len(models), f"{len(read)} events, not {len(models)}"
    for record, happened in zip(read, models, strict=True):
        check_event(record, happened)


def compare_state(state: EmotionalState | None, life: Life, now: int) -> None:
    """What it feels is what the model feels."""
    if life.model.felt is None:
        assert state is None, f"feels {state}, and never did"
        return
    assert state is not None, "feels nothing that is known"
    assert state.decay_rates == life.model.rates
    assert close(state.emotions, life.model.feels(now)), (state.emotions, life.model.feels(now))


def compare_memories(records: Any, life: Life, now: int) -> None:
    """What it knows is what the model knows; what may be over or not is left out."""
    read = {(r.memory_type, r.key): r for r in records}
    for name in {*read, *life.model.memories}:
        if life.is_certain(name):
            check_memory(read.get(name), *name, life.model.living(name, now))
