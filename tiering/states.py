"""What an agent feels, wherever it is."""

from __future__ import annotations

import os
from collections.abc import Mapping

from banshee_memory.cold import reads
from banshee_memory.emotions import Emotion, EmotionalState, StoredState
from banshee_memory.errors import ColdStoreUnavailable, HotStoreFull
from banshee_memory.failpoints import failpoint
from banshee_memory.hot import calls, leases, wire
from banshee_memory.hot.calls import MISS
from banshee_memory.hot.keys import AgentKeys
from banshee_memory.hot.leases import RESIDENT
from banshee_memory.hot.wire import SettledEvent
from banshee_memory.settings import Durability
from banshee_memory.tiering.residency import Residency, insist, offered
from banshee_memory.tiering.steps import Steps, write


def load(residency: Residency, keys: AgentKeys) -> Steps[EmotionalState | None]:
    """What it feels now; None if nothing was ever saved."""
    state = yield calls.load_state(keys)
    if state is not MISS:
        keep = residency.hit(keys.state)
        if keep is not None:
            yield keep
        return state  # type: ignore[no-any-return]
    residency.counters.misses += 1
    stored = yield from rehydrate(residency, keys)
    state = yield calls.load_state(keys)
    if state is not MISS:
        return state  # type: ignore[no-any-return]
    if stored is None:
        # It went again after somebody else had brought it in: all of it is cold.
        stored = yield reads.state_of(keys.agent)
    now = yield calls.now()
    return stored.at(now) if stored else None


def stored(residency: Residency, keys: AgentKeys) -> Steps[StoredState | None]:
    """The state as it was stored, undecayed; None if nothing was ever saved."""
    flat = yield calls.state_hash(keys)
    if not wire.is_resident(flat):
        cold = yield from rehydrate(residency, keys)
        if cold is not None:
            return cold
        flat = yield calls.state_hash(keys)
    if wire.is_resident(flat):
        return wire.state_of(flat)
    return (yield reads.state_of(keys.agent))  # type: ignore[no-any-return]


def rehydrate(residency: Residency, keys: AgentKeys) -> Steps[StoredState | None]:
    """Brings the state in, or its absence. Gives what PostgreSQL said; None also where Redis had it meanwhile.

    The lease is taken before PostgreSQL is asked, while the key is absent, so all of the state is cold then; whatever
    creates the key ends the lease. A refused offer is therefore no error: somebody else brought in something newer.
    """
    settings = residency.settings
    try:
        token = yield leases.lease(keys.state, "s", os.urandom(8), settings.lease_ttl)
    except HotStoreFull:
        return (yield reads.state_of(keys.agent))  # type: ignore[no-any-return]
    if token is RESIDENT:
        return None
    failpoint("rehydrate.state_leased")
    stored = yield reads.state_of(keys.agent)
    failpoint("rehydrate.state_asked")
    yield from offered(leases.offer_state(keys, token, settings.hot_ttl, stored))
    return stored  # type: ignore[no-any-return]


def save(residency: Residency, keys: AgentKeys, state: EmotionalState, level: Durability) -> Steps[None]:
    """Replaces what it feels. What absence means for it stays, so that must be resident; while PostgreSQL is away the
    rest is replaced all the same."""
    try:
        yield from insist(calls.save_state(keys, state, blind=False), lambda: rehydrate(residency, keys), level)
    except ColdStoreUnavailable:
        yield write(calls.save_state(keys, state, blind=True), level)


def set_temperament(
    residency: Residency, keys: AgentKeys, absence: str, rates: Mapping[Emotion, float | None], level: Durability
) -> Steps[EmotionalState]:
    """Its own rates of decay and what being away means for it; gives what it feels."""
    call = calls.set_temperament(keys, absence, rates)
    state = yield from insist(call, lambda: rehydrate(residency, keys), level)
    return state  # type: ignore[no-any-return]


def set_presence(residency: Residency, keys: AgentKeys, presence: str) -> Steps[None]:
    """It goes `away` or is `here`."""
    yield from insist(calls.set_presence(keys, presence), lambda: rehydrate(residency, keys))


def update(
    residency: Residency,
    keys: AgentKeys,
    changes: Mapping[Emotion, float],
    mode: str,
    level: Durability,
    once: str | None,
) -> Steps[EmotionalState]:
    """Changes what it feels, in one step; gives what is now true."""
    call = calls.update_emotions(keys, changes, mode, once)
    state = yield from insist(call, lambda: rehydrate(residency, keys), level)
    return state  # type: ignore[no-any-return]


def record_event(
    residency: Residency,
    keys: AgentKeys,
    body: bytes,
    changes: Mapping[Emotion, float],
    mode: str,
    occurred_us: int | None,
    level: Durability,
    once: str | None,
) -> Steps[SettledEvent]:
    """Records what happened and what it made the agent feel, in one step."""
    call = calls.save_event(keys, body, changes, mode, occurred_us, once)
    event = yield from insist(call, lambda: rehydrate(residency, keys), level)
    return event  # type: ignore[no-any-return]
