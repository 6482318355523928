"""What a failover may lose: what was acknowledged after the replica began to lag and was not in PostgreSQL.

Only that. The replica that took over says which of it is lost; the model follows it, and is certain again.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from copy import deepcopy
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING
from uuid import UUID

from banshee_memory import EmotionalState
from banshee_memory.cold import reads
from banshee_memory.emotions import StoredState
from banshee_memory.records import MemoryRecord, StoredMemory, known
from banshee_memory.stamps import to_us
from tests.simulator.deeds import ALL, BRIEF, LASTING
from tests.simulator.life import Felt, Life, Name, Version, number_of
from tests.simulator.sessions import follow_sessions
from tests.tiering.comparing import close

if TYPE_CHECKING:
    from tests.simulator.world import World


@dataclass(frozen=True)
class Survivors:
    """What of an agent must outlive the failover: what the replica knew, and what PostgreSQL had."""

    then: Life
    texts: set[str]
    events: set[int]
    state: StoredState | None
    memories: dict[Name, StoredMemory | None]
    sessions: list[UUID]


def survivors(world: World, then: Life) -> Survivors:
    """At the moment of the failover. `then`: the model when the replica began to lag."""
    cold = world.cold
    messages = cold.fetch(reads.message_page(then.id, ALL)).placed
    events = cold.fetch(reads.event_page(then.id, ALL)).placed
    return Survivors(
        then=then,
        texts={m.content for m in then.model.messages} | {placed.record.content for placed in messages},
        events={number_of(e) for e in then.model.events} | {number_of(placed.record) for placed in events},
        state=cold.fetch(reads.state_of(then.id)),
        memories={name: cold.fetch(reads.memory_of(then.id, *name, 0)) for name in (*LASTING, BRIEF)},
        sessions=[stretch.id for stretch in then.model.sessions]
        + [UUID(known(session).key) for session in cold.fetch(reads.memory_page(then.id, "_session", 0, ALL))],
    )


def snapshot(lives: Iterable[Life]) -> list[Life]:
    """The model as it is now."""
    return [deepcopy(life) for life in lives]


def follow(world: World, life: Life, surviving: Survivors) -> None:
    """Reads what is left of an agent, which must be all that had to survive and nothing that never was."""
    life.epoch += 1
    _follow_messages(world, life, surviving)
    _follow_events(world, life, surviving)
    _follow_state(world, life, surviving)
    for name in (*LASTING, BRIEF):
        _follow_memory(world, life, surviving, name)
    follow_sessions(world, life, surviving.sessions)
    life.changes += 1


def _follow_messages(world: World, life: Life, surviving: Survivors) -> None:
    read = {message.content: message for message in world.ask(lambda o: o.get_history(life.id, ALL, None))}
    lost = surviving.texts & {m.content for m in life.model.messages if life.lasts(m)} - read.keys()
    assert not lost, f"{life.label} lost {lost}, which had to survive"
    assert read.keys() <= {m.content for m in life.model.messages}
    life.model.messages = [m for m in life.model.messages if m.content in read]
    for said in life.model.messages:
        message = read[said.content]
        assert any(close(message.emotional_context or {}, known or {}) for known in life.contexts[said.content])
        said.id, said.context = message.id, message.emotional_context
        life.contexts[said.content].append(said.context)


def _follow_events(world: World, life: Life, surviving: Survivors) -> None:
    read = {number_of(event) for event in world.ask(lambda o: o.get_event_history(life.id, ALL))}
    lost = surviving.events & {number_of(e) for e in life.model.events if life.lasts(e)} - read
    assert not lost, f"{life.label} lost the events {lost}, which had to survive"
    assert read <= {number_of(e) for e in life.model.events}
    life.model.events = [e for e in life.model.events if number_of(e) in read]


def _follow_state(world: World, life: Life, surviving: Survivors) -> None:
    """The newer of what the replica and PostgreSQL knew, or something newer still that a flush under way stored."""
    cold = [n for n, felt in enumerate(life.states) if is_stored(felt, surviving.state)]
    oldest = max(len(surviving.then.states) - 1, min(cold, default=0))
    state = world.ask(lambda o: o.load_state(life.id))
    alike = [felt for felt in life.states[oldest:] if _feels_like(world, life, felt, state)]
    assert alike, f"{life.label} feels {state}, which is older than what had to survive"
    # What has faded looks alike whatever it was. PostgreSQL tells which it is: all that survived was carried there.
    stored = world.cold.fetch(reads.state_of(life.id))
    _take(life, next((felt for felt in alike if is_stored(felt, stored)), alike[0]))
    life.wrote(felt=True)


def _take(life: Life, felt: Felt) -> None:
    life.model.felt, life.model.rates = felt.felt and dict(felt.felt), dict(felt.rates)


def _feels_like(world: World, life: Life, felt: Felt, state: EmotionalState | None) -> bool:
    """Whether that is what is read now of who felt so."""
    _take(life, felt)
    if state is None or felt.felt is None:
        return state is None and felt.felt is None
    return state.decay_rates == felt.rates and close(state.emotions, life.model.feels(world.now))


def is_stored(felt: Felt, stored: StoredState | None) -> bool:
    """Whether PostgreSQL has just that."""
    if stored is None or felt.felt is None:
        return stored is None and felt.felt is None
    times = {emotion: one.at_us for emotion, one in stored.felt.items()}
    values = {emotion: one.intensity for emotion, one in stored.felt.items()}
    ours = {emotion: intensity for emotion, (intensity, _) in felt.felt.items()}
    return times == {emotion: at for emotion, (_, at) in felt.felt.items()} and close(values, ours)


def _follow_memory(world: World, life: Life, surviving: Survivors, name: Name) -> None:
    """As for the state. One that was deleted, in PostgreSQL too, must not come back."""
    versions = life.memories[name]
    oldest = max(len(surviving.then.memories[name]) - 1, _index(versions, surviving.memories[name]))
    record = world.ask(lambda o: o.get_memory(life.id, *name))
    version = next((v for v in versions[oldest:] if _says(record, v, world.latest)), None)
    assert version is not None, f"{life.label} knows {name} as {record}, which is older than what had to survive"
    known = version.known and replace(version.known)
    life.remember(name, known, version.stamp)
    if known is not None:
        life.model.memories[name] = known
        if record is None:
            life.doubtful.add(name)
        else:
            assert record.access_count >= known.count, "fewer accesses than at its beginning"
            known.count, known.accessed = record.access_count, to_us(record.last_accessed)
            known.created = to_us(record.created_at)


def _index(versions: Sequence[Version], stored: StoredMemory | None) -> int:
    """Which of the versions PostgreSQL has."""
    if stored is None:
        return 0
    index = max((n for n, version in enumerate(versions) if 0 < version.stamp <= stored.stamp), default=0)
    is_deletion = stored.record is None and versions[index].stamp < stored.stamp
    return index + (is_deletion and index + 1 < len(versions) and versions[index + 1].known is None)


def _says(record: MemoryRecord | None, version: Version, latest: int) -> bool:
    """Whether that is what is read; what was once over by a clock that stepped back since may be there or not."""
    if record is None:
        return version.known is None or version.known.is_over(latest)
    return version.known is not None and record.data == version.known.data
