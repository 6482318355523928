"""An agent whose messages PostgreSQL refuses for a while, and some of whose messages outlive their retention before
they are carried. It shares a shard with others, whose records must not suffer from that.

It is compared with sets, not with the plain model: when a message becomes a dead letter, and which of the old ones were
carried in time, nobody who writes can know. What was acknowledged is in its history or a dead letter; once PostgreSQL
takes all and every letter was put back, it is in its history, once.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from datetime import timedelta
from typing import TYPE_CHECKING, Any
from uuid import UUID

from banshee_memory import NewMessage
from banshee_memory.cold import reads
from banshee_memory.cold.client import ColdStore
from banshee_memory.hot import calls, wire
from banshee_memory.hot.keys import agent_keys
from banshee_memory.operations import Operation
from banshee_memory.stamps import from_us
from banshee_memory.tiering import letters
from tests.simulator.deeds import ALL, Deed
from tests.simulator.life import Life
from tests.simulator.retention import MESSAGE_DAYS

if TYPE_CHECKING:
    from banshee_memory.settings import Settings
    from banshee_memory.tiering.steps import Steps
    from tests.simulator.world import World

_SOON = timedelta(minutes=10)
"""What so little is left of a message's retention when it is said is beyond it once the clock has moved on."""
_OLD = "old"
_REFUSAL = """
CREATE TABLE refusing (thorns boolean NOT NULL);
INSERT INTO refusing VALUES (false);
CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF (SELECT thorns FROM refusing) THEN RAISE 'a thorn' USING ERRCODE = '22000'; END IF;
    RETURN NEW;
END $$;
CREATE TRIGGER refuse BEFORE INSERT ON conversation_messages
    FOR EACH ROW WHEN (NEW.content LIKE 'thorn%') EXECUTE FUNCTION refuse();
"""


def plant(cold: ColdStore) -> None:
    """From now on PostgreSQL can be told to refuse thorns."""
    with cold.connection() as connection:
        connection.execute(_REFUSAL.encode())


@dataclass
class Thorns:
    """The agent, and what is known of it."""

    life: Life
    settings: Settings
    must: set[str] = field(default_factory=set)
    """What was acknowledged and cannot be lost."""
    may: set[str] = field(default_factory=set)
    """What may be there besides: it was old, or a failover came after it."""
    kept: set[str] | None = None
    """What cannot be lost any more, when the replica began to lag."""
    flushed: set[str] | None = None
    """What was read last since everything is cold, to which nothing will come."""

    # --- deeds ---

    def deed(self, world: World) -> Deed:
        """What a client does next with it."""
        make = world.random.choices((self._say, self._say_old, self._retry, self._read), (6, 2, 2, 1))[0]
        return make(world)

    def _say(self, world: World) -> Deed:
        text = f"thorn {self.life.number()}" if world.random.random() < 0.7 else f"rose {self.life.number()}"
        said = [NewMessage(role="user", content=text, tokens_used=2)]
        return Deed(
            "say thorns",
            self.life,
            lambda: world.operations.save_messages(self.life.id, said, None, None),
            {"append_messages": lambda _: self.must.add(text)},
        )

    def _say_old(self, world: World) -> Deed:
        """As somebody without this library does, or a client whose clock is another."""
        text = f"{_OLD} {self.life.number()}"
        at = from_us(world.now) - timedelta(days=MESSAGE_DAYS) + _SOON
        body = wire.message_body(os.urandom(8), "user", text, None, None, 2, None)
        keys = agent_keys(self.life.id, self.settings.shards)
        call = calls.append_messages(keys, [(int(at.timestamp()) * 1_000_000, False, body)])
        return Deed(
            "say what is old",
            self.life,
            lambda: Operation(_one(call)),
            {"append_messages": lambda _: self.may.add(text)},
        )

    def _retry(self, world: World) -> Deed:
        return Deed("retry", self.life, lambda: Operation(retried(self.settings)))

    def _read(self, world: World) -> Deed:
        def check(messages: Any) -> None:
            texts = [message.content for message in messages]
            assert len(texts) == len(set(texts)), "a message twice"
            assert set(texts) <= self.must | self.may, "nobody said that"

        history = lambda: world.operations.get_history(self.life.id, ALL, None)  # noqa: E731
        return Deed("read thorns", self.life, history, ended=check)

    # --- faults ---

    def refuse(self, world: World, *, thorns: bool) -> None:
        """PostgreSQL takes no thorns from here on, or takes them again."""
        world.tell("postgresql refuses thorns" if thorns else "postgresql takes thorns")
        with world.cold.connection() as connection:
            connection.execute("UPDATE refusing SET thorns = %s", [thorns])

    def lag(self) -> None:
        """What was said so far the replica has."""
        self.kept = set(self.must)

    def fail_over(self, world: World) -> None:
        """Of what was said since, what PostgreSQL had is left, and perhaps more."""
        assert self.kept is not None
        cold = {p.record.content for p in world.cold.fetch(reads.message_page(self.life.id, ALL)).placed}
        self.may |= self.must
        self.must, self.kept = (self.kept | cold) & self.must, None

    # --- what must hold ---

    def heal(self, world: World) -> None:
        """PostgreSQL takes all, and every letter goes back."""
        self.refuse(world, thorns=False)
        self.flushed = None
        world.ask(lambda _: Operation(retried(self.settings)))
        assert not world.ask(lambda _: Operation(letters.found(self.settings, None, None, ALL))), "a letter stays"

    def compare(self, world: World, where: str) -> None:
        """Nothing is lost and nothing there twice; all says the same; from the last flush on nothing comes, and only
        what is old goes."""
        messages = world.ask(lambda o: o.get_history(self.life.id, ALL, None))
        texts = [message.content for message in messages]
        assert len(texts) == len(set(texts)), "a message twice"
        # Not by stamp as well: a letter that is put back on a server that does not know that it is cold has another one
        # there, and another place among what was said in its millisecond.
        assert messages == sorted(messages, key=lambda message: message.created_at), "out of order"
        assert self.must <= set(texts), f"lost: {self.must - set(texts)}"
        assert set(texts) <= self.must | self.may, "nobody said that"
        stats = world.ask(lambda o: o.get_conversation_stats(self.life.id))
        if where == "as it lies":
            return
        assert self.flushed is None or set(texts) <= self.flushed, f"{texts} is more than {self.flushed}"
        self.flushed = set(texts)
        carried = self.life.carried
        assert set(texts) <= carried, f"{set(texts) - carried} is there, and was never cold"
        assert stats.total_messages == len(carried), f"{stats.total_messages} are counted, and {carried} were cold"
        assert stats.total_tokens == 2 * len(carried)
        # What is there now is carried; but for its age, it stays.
        self.may = {text for text in texts if text.startswith(_OLD)}
        self.must = set(texts) - self.may


def _one(call: calls.Call[Any]) -> Steps[Any]:
    return (yield call)


def retried(settings: Settings) -> Steps[int]:
    """Every dead letter there is goes back."""
    found = yield from letters.found(settings, None, None, ALL)
    return (yield from letters.retried(settings, found))


def thorny(number: int, settings: Settings) -> Thorns:
    """An agent of that number."""
    return Thorns(Life(UUID(int=number), "thorns"), settings)
