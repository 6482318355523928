"""The simulation: clients, daemons and agents on real servers, moved one step at a time by one seeded schedule.

A step is one round trip of one client, or one sweep of one daemon. A sweep is cut into pieces by its round trips and
its failpoints: there others may take steps, the daemon may die, a connection may be cut before a call or after it was
carried out. Stamps and ids come from real servers and differ from run to run; the schedule is the same for a seed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from copy import deepcopy
from datetime import UTC, datetime, timedelta
from random import Random
from typing import Any
from unittest.mock import patch
from uuid import UUID

import msgspec

from banshee_memory.cold import partitions
from banshee_memory.errors import BansheeError
from banshee_memory.failpoints import armed
from banshee_memory.hot.calls import Call
from banshee_memory.hot.keys import shard_keys
from banshee_memory.operations import AnyOperation, Operations
from banshee_memory.settings import Durability, Settings
from banshee_memory.stamps import from_us, to_us
from banshee_memory.tiering.drain import Drain
from banshee_memory.tiering.forgetting import Forgetting
from banshee_memory.tiering.recovery import Recoverer
from banshee_memory.tiering.steps import Steps, drive
from tests.own_servers import CLOCK_KEY
from tests.simulator.beside import WITHOUT_ROWS, flush, recover
from tests.simulator.checks import assert_clean_is_cold, assert_healed
from tests.simulator.deeds import Deed, Deeds
from tests.simulator.failover import Survivors, follow, snapshot, survivors
from tests.simulator.life import Life
from tests.simulator.retention import EVENT_DAYS, HOURLY_DAYS, MESSAGE_DAYS, begin, end_of_days, outlive, take_down
from tests.simulator.servers import Servers
from tests.simulator.stores import CutColdStore, CutHotStore
from tests.simulator.thorns import plant, thorny
from tests.simulator.upkeep import maintain
from tests.tiers import by_the_library

SETTINGS = Settings(
    message_cap=3,
    event_cap=3,
    message_retention_days=MESSAGE_DAYS,
    event_retention_days=EVENT_DAYS,
    hourly_rollup_days=HOURLY_DAYS,
    shards=2,
    flush_batch=24,
    flush_timeout=2.0,
    idempotency_window=3e9,
    db_min_connections=3,
)
"""Lists so short that they are trimmed, one log for several agents, batches that do not hold all that waits."""

AGENTS, CLIENTS, DAEMONS = 4, 4, 2
DEEPEST = 2
MUCH, LONG = 4, 60
"""What waits when a replica begins to lag, and how many deeds later it can take over."""
BEGINNING = timedelta(days=60)
END = timedelta(days=10)
"""Before now. So far the clock may be moved on: stamps, and what has no other time, lie after all of it."""


class Killed(BaseException):
    """A process died here: nothing of it runs any more, but what gives back connections."""


class Broken(AssertionError):
    """A promise was broken; with the seed and what was done until then."""


class Client:
    """A process that makes one call after another."""

    def __init__(self, world: World, name: str) -> None:
        self.name = name
        self.deed: Deed | None = None
        self.is_busy = False
        self.pace = 4.0
        self._world = world
        self._steps: Steps[Any] | None = None
        self._step: Any = None
        self._retries = 0

    def act(self) -> None:
        """One step further: one round trip."""
        if self._steps is None:
            if self.deed is None or not self._retries:
                self.deed, self._retries = self._world.a_deed(), 3
            self._advance(lambda: next(self._begin()))
            return
        self._advance(self._carry_on)

    def _begin(self) -> Steps[Any]:
        assert self.deed is not None
        self._world.tell(f"{self.name}: {self.deed.name} {self.deed.life.label}")
        self._steps = self.deed.start().steps
        return self._steps

    def _carry_on(self) -> Any:
        assert self._steps is not None
        try:
            result = drive(_only(self._step), self._world.hot, self._world.cold)
        except BansheeError as exc:
            return self._steps.throw(exc)
        return self._steps.send(result)

    def _advance(self, move: Callable[[], Any]) -> None:
        deed = self.deed
        assert deed is not None
        try:
            self._step = move()
        except StopIteration as stop:
            self._steps = self.deed = None
            deed.end(stop.value)
        except BansheeError as exc:
            self._steps = None
            self._world.excuse(f"{deed.name} {deed.life.label}", exc)
            # Who has a key calls again: it is done once all the same.
            self._retries = self._retries - 1 if deed.key is not None else 0
        except Killed:
            self._world.tell(f"{self.name}: dies")
            self._steps = self.deed = None

    def give_up(self, life: Life) -> None:
        """It dies if it is at a call with a key for that agent: whether that is done again is for others to test."""
        if self.deed is not None and self.deed.life is life and self.deed.key is not None:
            self._steps = self.deed = None

    def finish(self) -> None:
        """To the end of what it is at."""
        for _ in range(200):
            if self._steps is None:
                break
            self.act()
        assert self._steps is None, "an operation has no end"
        self.deed = None


def _only(step: Any) -> Steps[Any]:
    return (yield step)


class Daemon:
    """A process that carries what waits, and now and then maintains."""

    def __init__(self, world: World, name: str) -> None:
        self.name = name
        self.is_busy = False
        self.pace = 1.0
        self._world = world

    def act(self) -> None:
        """One sweep, of which others may see every piece."""
        world = self._world
        world.tell(f"{self.name}: sweeps")
        try:
            if world.random.random() < (0.5 if world.is_upkeep_due else 0.03):
                maintain(world)
            if world.is_at_top and world.random.random() < 0.1:  # it would wait for the rows of whoever is in between
                flush(world, world.random.choice(world.lives))
            Drain(world.settings, world.hot, world.cold).sweep()
        except BansheeError as exc:
            world.excuse(self.name, exc)
        except Killed:
            world.tell(f"{self.name}: dies")
            if world.random.random() < 0.3:
                world.let_days_pass()  # before anybody notices


class World:
    """All of it, for one seed."""

    def __init__(self, servers: Servers, hot: CutHotStore, cold: CutColdStore, seed: int, settings: Settings) -> None:
        self.servers, self.hot, self.cold, self.seed, self.settings = servers, hot, cold, seed, settings
        self.random = Random(seed)
        self.trace: list[str] = []
        self.troubles = 0
        """Counts what excuses an error: cut connections, servers that are away or full, keys that Redis let go of."""
        self.now = self.latest = to_us(datetime.now(UTC) - BEGINNING)
        # Their clock is not the simulation's: what a client tells the time of would be beyond retention by it.
        self.operations = Operations(
            msgspec.structs.replace(settings, message_retention_days=None, event_retention_days=None)
        )
        by_the_library(self.operations)
        levels = (Durability.HOT, Durability.SYNCED if servers.redis.can_sync else Durability.HOT)
        self.deeds = Deeds(self.operations, self.random, lambda: self.now, levels)
        # Agents of their own for every seed, and as many on each shard.
        self.lives = [Life(UUID(int=self.random.getrandbits(96) << 32 | n), f"a{n}") for n in range(AGENTS)]
        self.thorns = thorny(self.random.getrandbits(96) << 32 | AGENTS, settings)
        self._actors: list[Client | Daemon] = [Client(self, f"client {n}") for n in range(CLIENTS)]
        self._actors += [Daemon(self, f"daemon {n}") for n in range(DAEMONS)]
        self.is_upkeep_due = False
        """Days have passed since the last that was carried through."""
        self._depth = 0
        self._is_quiet = False
        self._is_down = False
        self._is_urgent = False
        """It is another Redis: whoever is at work goes on first, for others would wait for the rows that it holds."""
        self._recoveries = 0
        self._is_joined = False
        """A second process recovers the server."""
        self._lags_since = 0
        self._may_lag = True
        """One failover is enough for a seed."""
        self._goes_back = self.random.random() < 0.3
        """It is not to a replica that lags but to an old file."""
        self._then: list[Life] | None = None
        """The model when the replica began to lag."""
        self._survivors: list[Survivors] | None = None
        """What must outlive a failover that just was."""
        self._at: Client | Daemon | None = None
        hot.world = cold.world = self

    # --- what others ask ---

    def tell(self, what: str) -> None:
        """Writes down what happens."""
        self.trace.append(f"{'  ' * self._depth}{what}")

    def a_deed(self) -> Deed:
        """What a client does next."""
        if self.random.random() < 0.07:
            return self.thorns.deed(self)
        # Few agents are the busy ones, so that clients meet.
        life = self.random.choices(self.lives, [6, 3, 2, 1])[0]
        return self.deeds.any(life)

    @property
    def everyone(self) -> list[Life]:
        """All agents."""
        return [*self.lives, self.thorns.life]

    @property
    def is_at_top(self) -> bool:
        """Whether nobody else is in the middle of something."""
        return self._depth == 0

    def excuse(self, who: str, exc: BansheeError) -> None:
        """An error must have a cause."""
        self.tell(f"{who}: {type(exc).__name__} {exc}")
        assert self.troubles, f"{who} failed without a cause: {exc}"

    def do(self, call: Call[Any], reply: Any) -> None:
        """Redis carried out a call of the actor who is at work."""
        if isinstance(self._at, Client) and self._at.deed is not None and str(call.command[0]).startswith("FCALL"):
            self._at.deed.do(call, reply)

    def ask(self, operation: Callable[[Operations], AnyOperation[Any]]) -> Any:
        """What an operation gives, all at once."""
        return drive(operation(self.operations).steps, self.hot, self.cold)

    # --- the schedule ---

    def run(self, steps: int) -> None:
        """So many steps and faults, then all is healed and compared; twice."""
        try:
            self._set_clock()
            outlive(self)
            begin(self, to_us(datetime.now(UTC) - END))
            self.thorns.refuse(self, thorns=False)
            with armed(self._reached):
                for _ in range(2):
                    for _ in range(steps):
                        self._step()
                    self._heal()
        except (AssertionError, BansheeError) as exc:
            raise Broken(self._told(exc)) from exc
        finally:
            self._is_quiet = True

    def _told(self, exc: Exception) -> str:
        tail = "\n".join(self.trace[-150:])
        return f"{exc}\n\nBANSHEE_SIMULATOR_SEED={self.seed} replays it. What was done:\n{tail}"

    def _step(self) -> None:
        if self._depth > 0 and self._is_urgent:
            return
        self._is_urgent = False
        if self._survivors is not None:
            self._follow()
            return
        if self.random.random() < 0.12 and not self._is_down:
            self._disturb()
            return
        idle = [actor for actor in self._actors if not actor.is_busy]
        weights = [actor.pace for actor in idle]
        self._let(self.random.choices(idle, weights)[0])

    def _let(self, actor: Client | Daemon) -> None:
        before, self._at, actor.is_busy = self._at, actor, True
        try:
            actor.act()
        finally:
            self._at, actor.is_busy = before, False

    def between(self) -> None:
        """Between two round trips of one daemon, others take some steps."""
        if not self._is_quiet and self._depth < DEEPEST and self.random.random() < 0.25:
            self._nest()

    def _nest(self) -> None:
        self._depth += 1
        try:
            for _ in range(self.random.randrange(1, 8)):
                self._step()
        finally:
            self._depth -= 1

    def _reached(self, name: str) -> None:
        if self._is_quiet:
            return
        chance = self.random.random()
        if chance < 0.05:
            self.tell(f"dies at {name}")
            self.troubles += 1
            raise Killed
        if name in WITHOUT_ROWS and chance > 0.7 and not self._is_joined:
            self._join()
        if chance < 0.3 and self._depth < DEEPEST:
            self.tell(f"at {name}:")
            self._nest()
        if name == "partitions.dropped":
            take_down(self)

    def _join(self) -> None:
        self._is_joined = True
        try:
            recover(self)
        except BansheeError as exc:
            self.excuse("the other process", exc)
        except Killed:
            self.tell("the other process dies")
        finally:
            self._is_joined = False

    @contextmanager
    def alone(self) -> Iterator[None]:
        """Nobody takes steps between those of this one; it can die all the same."""
        before, self._depth = self._depth, self._depth + DEEPEST
        try:
            yield
        finally:
            self._depth = before

    def is_cut(self) -> bool:
        """Whether a connection is cut here."""
        if self._is_quiet or self._at is None or self.random.random() > 0.02:
            return False
        self.troubles += 1
        return True

    @contextmanager
    def recovering(self) -> Iterator[None]:
        """A recovery is under way, which is cut off from PostgreSQL more often than others."""
        with self.alone():
            self._recoveries += 1
            try:
                yield
            finally:
                self._recoveries -= 1

    def is_cut_off(self) -> bool:
        """Whether PostgreSQL cannot be reached here."""
        chance = 0.2 if self._recoveries else 0.02
        if self._is_quiet or self._at is None or self.random.random() > chance:
            return False
        self.troubles += 1
        return True

    # --- faults ---

    def _disturb(self) -> None:
        faults: list[tuple[Callable[[], None], float]] = [
            (self._let_go, 10),
            (self._move_clock, 6),
            (self.let_days_pass, 3),
            (self._look, 6),
            (self._pause, 3),
            (self._forget, 0.6 * (self._depth == 0)),
            (self._kill_redis, 0.25),
            (self._kill_postgres, 0.12),
            (self._fill, 1),
            (self._make_room, 1),
            (self._rush_ids, 0.5),
            (self._refuse, 2),
            (self._lag, 3) if self._may_lag else (self._fail_over, 3 * self._has_lagged),
        ]
        self.random.choices([fault for fault, _ in faults], [weight for _, weight in faults])[0]()

    def _let_go(self) -> None:
        """Redis evicts keys that have a TTL: some, or all."""
        client, share = self.servers.redis.client, self.random.choice((0.3, 1.0))
        for key in sorted(key for life in self.everyone for key in client.keys(f"banshee:{{*:{life.id}*")):
            if client.pttl(key) >= 0 and self.random.random() < share:
                client.delete(key)
        self.tell(f"redis lets go of {share:.0%}")
        self.troubles += 1

    def _move_clock(self) -> None:
        by = self.random.choice((1_000, 700_000, 2_000_000, 61_000_000, 3_700_000_000, -500_000, -5_000_000))
        self._turn_clock(by)
        self.tell(f"the clock moves by {by} us")

    def let_days_pass(self) -> None:
        """Until about the moment from which on a partition is dropped. No flush takes days; nor does a replica lag for
        them, which could bring back what was deleted: that is known for a week."""
        at = end_of_days(self, to_us(datetime.now(UTC) - END))
        if at is not None and self.is_at_top and self._then is None:
            self._turn_clock(at - self.now)
            self.is_upkeep_due = True
            self.tell(f"days pass, until {from_us(at)}")

    def _turn_clock(self, by: int) -> None:
        self.now += by
        for life in self.lives:
            life.doubt(self.latest, self.now)
        self.latest = max(self.latest, self.now)
        self._set_clock()
        self.troubles += outlive(self)

    def _set_clock(self) -> None:
        with self._room() as client:
            client.set(CLOCK_KEY, self.now)

    @contextmanager
    def _room(self) -> Iterator[Any]:
        """A raw client that a full Redis obeys, too."""
        client = self.servers.redis.client
        most = client.config_get("maxmemory")["maxmemory"]
        client.config_set("maxmemory", 0)
        try:
            yield client
        finally:
            client.config_set("maxmemory", most)

    def _pause(self) -> None:
        """A client all but stops where it is, or goes on."""
        client = self.random.choice([actor for actor in self._actors if isinstance(actor, Client)])
        client.pace = 4.0 if client.pace < 1 else 0.05
        self.tell(f"{client.name} goes on" if client.pace > 1 else f"{client.name} stops for a while")

    def _forget(self) -> None:
        """An agent is forgotten, whatever others are at: nothing of it comes back, from a replica neither."""
        number = self.random.randrange(len(self.lives))
        life = self.lives[number]
        self.tell(f"{life.label} is forgotten")
        self.troubles += 1
        with self.quiet(), self._room():
            Forgetting(self.settings, self.hot, self.cold).forget(life.id)
        life.begin_again()
        if self._then is not None:
            self._then[number] = deepcopy(life)
        self._let_go_of_keys(life)

    def _let_go_of_keys(self, life: Life) -> None:
        for actor in self._actors:
            if isinstance(actor, Client):
                actor.give_up(life)

    def _look(self) -> None:
        """Whatever Redis may let go of is in PostgreSQL."""
        assert_clean_is_cold(self)

    def _kill_redis(self) -> None:
        self.tell("redis dies, and comes back from its file")
        self.servers.redis.primary.kill()
        self.troubles += 1
        if self._depth < DEEPEST and self.random.random() < 0.5:
            self._is_down = True
            self._nest()
            self._is_down = False
        self.servers.redis.primary.start()
        self._is_urgent = True

    def _kill_postgres(self) -> None:
        self.tell("postgresql dies, and comes back")
        self.troubles += 1
        self.servers.postgres.die()

    def _fill(self) -> None:
        self.tell("redis is full")
        self.troubles += 1
        self.servers.redis.client.config_set("maxmemory", 1)

    def _make_room(self) -> None:
        self.servers.redis.client.config_set("maxmemory", 0)

    def _rush_ids(self) -> None:
        """The server's clock was ahead for a moment: its ids never go back."""
        shard = self.random.randrange(self.settings.shards)
        log = f"banshee:{{{shard}}}:log"
        with self._room() as client:
            if not client.exists(log):
                return
            ms = int(client.xinfo_stream(log)["last-generated-id"].partition(b"-")[0])
            client.execute_command("XSETID", log, f"{ms + 5_000}-0")
        self.tell(f"the ids of shard {shard} rush ahead")

    def _refuse(self) -> None:
        self.thorns.refuse(self, thorns=self.random.random() < 0.6)

    def _lag(self) -> None:
        waiting = sum(self.servers.redis.client.xlen(keys.log) for keys in map(shard_keys, range(self.settings.shards)))
        if waiting < MUCH:
            return  # of what is cold already nothing can be older on the replica
        self.tell("this file will come back" if self._goes_back else "the replica lags from here on")
        self._may_lag = False
        if self._goes_back:
            self.servers.redis.keep_file()
        else:
            self.servers.redis.lag()
        self._then, self._lags_since = snapshot(self.lives), len(self.trace)
        self.thorns.lag()

    @property
    def _has_lagged(self) -> bool:
        """Whether the replica has fallen so far behind that it matters."""
        return self._then is not None and len(self.trace) - self._lags_since > LONG

    def _fail_over(self) -> None:
        assert self._then is not None
        self.tell(
            "redis dies, and comes back from an old file" if self._goes_back else "redis dies; the replica takes over"
        )
        self.troubles += 1
        with self.quiet():
            self._survivors = [survivors(self, then) for then in self._then]
            self.thorns.fail_over(self)
        self._then = None
        self._is_urgent = True
        if self._goes_back:
            self.servers.redis.go_back()
        else:
            self.servers.redis.fail_over()
        self._set_clock()

    @property
    def is_followed(self) -> bool:
        """Whether the model knows what the last failover lost."""
        return self._survivors is None

    def _follow(self) -> None:
        """What is lost is known when whoever was at work on the old server has ended, and when the recovery has: one
        that waited in vain for the rows of a flush leaves a server from which older values are read than are cold."""
        with self.quiet():
            assert self.hot.recovery is not None
            self.hot.recovery.admit()
            for life, surviving in zip(self.lives, self._survivors or (), strict=True):
                self._let_go_of_keys(life)
                follow(self, life, surviving)
        self._survivors = None

    # --- the end ---

    @contextmanager
    def quiet(self) -> Iterator[None]:
        """Nothing is disturbed, and nobody comes between."""
        before, self._is_quiet = self._is_quiet, True
        try:
            yield
        finally:
            self._is_quiet = before

    def _heal(self) -> None:
        with self.quiet():
            if self._survivors is not None:
                self._follow()
            if self._then is not None:
                self.servers.redis.keep_up()
                self._then = None
            self._make_room()
            self.tell("all is healed")
            for actor in self._actors:
                if isinstance(actor, Client):
                    self._at = actor
                    actor.finish()
            self._at = None
            self.thorns.heal(self)
            assert_healed(self)


class Alone:
    """A recovery, between whose steps nobody of the same process comes: all actors share its one meeting."""

    def __init__(self, hot: CutHotStore, recoverer: Recoverer) -> None:
        self._hot = hot
        self._recoverer = recoverer

    def meet(self) -> None:
        with self._hot.world.recovering() if self._hot.world else nullcontext():
            self._recoverer.meet()

    def admit(self) -> None:
        with self._hot.world.recovering() if self._hot.world else nullcontext():
            self._recoverer.admit()


def _prepare(hot: CutHotStore, cold: CutColdStore) -> None:
    """What is done but once in the life of servers is done before, so that a seed finds the same wherever it runs."""
    hot.load_library()
    Recoverer(cold.settings, hot, cold).admit()
    plant(cold)
    cold.prepare_partitions(datetime.now(UTC))


@contextmanager
def stores(servers: Servers, clock: str, settings: Settings = SETTINGS) -> Iterator[tuple[CutHotStore, CutColdStore]]:
    """Clients of the servers whose connections can be cut."""
    hot = CutHotStore(servers.redis.url, settings, clock=clock)
    cold = CutColdStore(servers.database_url, settings)
    hot.recovery = Alone(hot, Recoverer(settings, hot, cold))
    try:
        _prepare(hot, cold)
        # Whoever is at work on a partition waits for us: to wait for it is of no use.
        with patch.object(partitions, "_LOCK_MS", 1), patch.object(partitions, "_TRIES", 1):
            yield hot, cold
    finally:
        hot.close()
        cold.close()
