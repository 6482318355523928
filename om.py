"""Typed redis-om models, to be read, over agent states and sessions: the extra `om`, for those who use redis-om.

`models(memory)` gives them. `get` and `of` read through the plugin, whatever tier an agent is in. `find` searches the
projections that `project` makes, because the hot tier's own values are binary and no search module can index them.
"""

from __future__ import annotations

import importlib
import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from datetime import datetime
from types import ModuleType
from typing import Any, ClassVar, NoReturn, Optional
from uuid import UUID

from banshee_memory import validation
from banshee_memory.emotions import Emotion, EmotionalState
from banshee_memory.errors import BansheeError, ConfigurationError, InvalidInput, shown
from banshee_memory.hot import faults
from banshee_memory.hot.location import options, where
from banshee_memory.plugin import MemoryPlugin
from banshee_memory.records import AgentSession

Fields = dict[str, Any]
PREFIX = "banshee-om"
"""What projections' keys begin with; the log's begin with `banshee:`."""


class ReadOnlyModel(BansheeError):
    """A model was asked to write. It would go around the log, so nothing was done."""


class SearchUnavailable(BansheeError):
    """`find` needs a search module, and the Redis server has none."""


def models(memory: MemoryPlugin) -> Models:
    """The models bound to a plugin. ConfigurationError without the extra `om`. Close it before the plugin."""
    return Models(memory)


class Models:
    """`AgentState` and `Session`, and their projections."""

    def __init__(self, memory: MemoryPlugin) -> None:
        om = _redis_om()
        url = memory._connections.urls()[0]
        self._where = where(url)
        with self._faults():
            self._db = _client(url, memory)
        self.AgentState: Any = _made(om, "AgentState", _AgentState, _state_types(om), memory, self)
        self.Session: Any = _made(om, "Session", _Session, _session_types(om), memory, self)

    def project(self, agent_ids: Iterable[UUID | str], *, ttl_seconds: int = 60, sessions: int = 50) -> int:
        """Writes what the agents feel now, and their newest sessions, as hashes that expire; gives how many.

        Copies for `find` only: they neither fade nor follow later writes, and no part of the log. Project again for
        what is true then.
        """
        validation.count("ttl_seconds", ttl_seconds, low=1, high=86_400)
        records = [record for agent_id in agent_ids for record in self._of(_agent(agent_id), sessions)]
        for model in (self.AgentState, self.Session) if self._has_search() else ():
            self._index(model)
        with self._faults(), self._db.pipeline(transaction=True) as pipe:
            for key, fields in records:
                pipe.delete(key)
                if fields:
                    pipe.hset(key, mapping=_hashed(fields))
                    pipe.expire(key, ttl_seconds)
            pipe.execute()
        return sum(1 for _, fields in records if fields)

    def close(self) -> None:
        """Closes the connections of `project` and `find`; the next call opens new ones."""
        self._db.close()
        self._db.connection_pool.disconnect()

    def _of(self, agent: UUID, sessions: int) -> Iterator[tuple[str, Fields | None]]:
        yield self.AgentState.make_primary_key(agent), self.AgentState._read(agent)
        for fields in self.Session._read(agent, sessions):
            yield self.Session.make_primary_key(fields["id"]), fields

    def _has_search(self) -> bool:
        import redis

        try:
            with self._faults():
                self._db.execute_command("FT._LIST")
        except BansheeError as exc:
            if isinstance(exc.__cause__, redis.ResponseError) and "unknown command" in str(exc.__cause__).lower():
                return False
            raise
        return True

    def _searchable(self, model: Any) -> None:
        if not self._has_search():
            raise SearchUnavailable(
                f"Redis at {self._where} has no search module (FT.SEARCH), so find() cannot work. Use "
                "memory.conversations.search_messages, memory.sessions.get_sessions, or SQL on PostgreSQL's tables."
            )
        self._index(model)

    def _index(self, model: Any) -> None:
        import redis

        try:
            with self._faults():
                self._db.execute_command("FT.CREATE", model.Meta.index_name, *model.redisearch_schema().split())
        except BansheeError as exc:
            if not (isinstance(exc.__cause__, redis.ResponseError) and "already exists" in str(exc.__cause__)):
                raise

    @contextmanager
    def _faults(self) -> Iterator[None]:
        import redis

        try:
            yield
        except redis.RedisError as exc:
            raise faults.fault(exc, self._where) from exc


def _refused(*_: object, **__: object) -> NoReturn:
    raise ReadOnlyModel("this model can only be read: its write would go around the log. Write with the MemoryPlugin.")


class _ReadOnly:
    _memory: ClassVar[MemoryPlugin]
    _bound: ClassVar[Models]
    save = update = expire = expire_field = persist_field = staticmethod(_refused)
    add = delete = delete_many = staticmethod(_refused)

    @classmethod
    def find(cls, *expressions: Any, knn: Any = None) -> Any:
        """redis-om's own query, over what `Models.project` wrote; SearchUnavailable where there is no search module."""
        cls._bound._searchable(cls)
        return _redis_om().FindQuery(expressions=expressions, knn=knn, model=cls)


class _AgentState(_ReadOnly):
    @classmethod
    def get(cls, pk: UUID | str) -> Any:
        """What the agent feels now; redis-om's NotFoundError if nothing was ever saved."""
        fields = cls._read(_agent(pk))
        if fields is None:
            raise _redis_om().NotFoundError(f"nothing was ever saved of agent {pk}")
        return cls(**fields)

    @classmethod
    def _read(cls, agent: UUID) -> Fields | None:
        state = cls._memory.emotions.load_state(agent)
        return None if state is None else _state_fields(agent, state)


class _Session(_ReadOnly):
    @classmethod
    def get(cls, agent_id: UUID | str, session_id: UUID | str) -> Any:
        """A session among the agent's newest 1,000; redis-om's NotFoundError if it is none of them."""
        for session in cls.of(agent_id, 1000):
            if session.id == str(session_id):
                return session
        raise _redis_om().NotFoundError(f"agent {agent_id} has no session {session_id}")

    @classmethod
    def of(cls, agent_id: UUID | str, limit: int = 50) -> list[Any]:
        """The agent's newest sessions, newest first."""
        return [cls(**fields) for fields in cls._read(_agent(agent_id), limit)]

    @classmethod
    def _read(cls, agent: UUID, limit: int) -> list[Fields]:
        return [_session_fields(session) for session in cls._memory.sessions.get_sessions(agent, limit)]


def _state_types(om: ModuleType) -> Fields:
    types: Fields = {"agent_id": (str, om.Field(primary_key=True))}
    types |= {str(e): (float, om.Field(default=0.0, index=True, sortable=True)) for e in Emotion}
    types |= {name: (float, om.Field(index=True, sortable=True)) for name in ("valence", "arousal")}
    types["dominant"] = (Optional[str], om.Field(default=None, index=True))  # noqa: UP045 - redis-om reads no `X | None`
    return types | {"last_updated": (datetime, om.Field(index=True, sortable=True))}


def _session_types(om: ModuleType) -> Fields:
    text = importlib.import_module("pydantic").Json  # a hash holds no objects
    ended = om.Field(default=None, index=True, sortable=True)
    types: Fields = {"id": (str, om.Field(primary_key=True)), "agent_id": (str, om.Field(index=True))}
    types["session_start"] = (datetime, om.Field(index=True, sortable=True))
    types["session_end"] = (Optional[datetime], ended)  # noqa: UP045
    totals = ("total_messages", "total_events", "total_tokens_used")
    types |= {name: (int, om.Field(default=0, index=True, sortable=True)) for name in totals}
    types["initial_emotional_state"] = (text[dict[Emotion, float]], ...)
    types["final_emotional_state"] = (Optional[text[dict[Emotion, float]]], None)  # noqa: UP045
    return types | {"session_metadata": (text[Any], ...)}


def _state_fields(agent: UUID, state: EmotionalState) -> Fields:
    felt = {str(emotion): state.emotions.get(emotion, 0.0) for emotion in Emotion}
    summed = {"valence": state.overall_valence, "arousal": state.overall_arousal, "last_updated": state.last_updated}
    return {"agent_id": str(agent), **felt, **summed, "dominant": str(state.dominant[0]) if state.dominant else None}


def _session_fields(session: AgentSession) -> Fields:
    fields: Fields = {name: getattr(session, name) for name in session.__struct_fields__}
    final = session.final_emotional_state
    fields |= {"id": str(session.id), "agent_id": str(session.agent_id)}
    fields["initial_emotional_state"] = json.dumps(session.initial_emotional_state)
    fields["final_emotional_state"] = None if final is None else json.dumps(final)
    return fields | {"session_metadata": json.dumps(session.session_metadata)}


def _made(om: ModuleType, name: str, reading: type, types: Fields, memory: MemoryPlugin, bound: Models) -> Any:
    create: Callable[..., Any] = importlib.import_module("pydantic").create_model
    bases = (reading, om.HashModel)
    model = create(name, __base__=bases, __module__=__name__, __cls_kwargs__={"index": True}, **types)
    model._memory, model._bound, model.__doc__ = memory, bound, reading.__doc__
    model._meta.database, model._meta.global_key_prefix, model._meta.model_key_prefix = bound._db, PREFIX, name.lower()
    model._meta.index_name = f"{PREFIX}:{name.lower()}:index"
    # Its index is made by `project` and `find`; redis-om's migrator need not know it.
    importlib.import_module("redis_om.model.model").model_registry.pop(f"{__name__}.{name}", None)
    return model


def _hashed(fields: Mapping[str, Any]) -> Fields:
    """As redis-om keeps them in a hash: times as seconds, what is None left out."""
    given = {name: value for name, value in fields.items() if value is not None}
    return {name: value.timestamp() if isinstance(value, datetime) else value for name, value in given.items()}


def _agent(agent_id: UUID | str) -> UUID:
    try:
        return validation.agent(UUID(agent_id) if isinstance(agent_id, str) else agent_id)
    except InvalidInput:
        raise
    except ValueError:
        raise InvalidInput("agent_id", f"{shown(agent_id)} is no UUID") from None


def _client(url: str, memory: MemoryPlugin) -> Any:
    import redis
    from redis.retry import Retry

    client = redis.Redis.from_url(url, **{**options(memory.settings, url, Retry), "decode_responses": True})
    # redis-om asks for commands that a server may not know; redis-py's reading of that answer breaks.
    client.response_callbacks.pop("COMMAND", None)
    return client


def _redis_om() -> ModuleType:
    try:
        return importlib.import_module("redis_om")
    except ImportError as exc:
        raise ConfigurationError("the models need redis-om: pip install 'banshee-memory[om]'") from exc
