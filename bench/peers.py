"""What people use today for the same, each measured where it is installed (`bench/requirements.txt`).

Each is used as its own documentation does, over the same Unix sockets, with the same text, and with the metadata where
it has a place for them. Each has as many sessions as we have agents. What it gives must be what was put in: a peer that
does not is not measured.
"""

from __future__ import annotations

import asyncio
import importlib
import warnings
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import ExitStack
from typing import Any, TypeVar
from urllib.parse import urlsplit

import psycopg

from banshee_memory import Emotion
from banshee_memory.cli.workload import DATA, FELT, MESSAGES, METADATA, WORDS, turning
from bench import targets
from bench.measuring import Case
from bench.world import AGENTS

T = TypeVar("T")
TEXT = WORDS * 2
NAMES = [f"peer-{number}" for number in range(2 * AGENTS)]
CALLS = 20


class Setting:
    """Where a peer is put up: the servers, the loop of its tasks, and what is closed at the end."""

    def __init__(self, urls: tuple[str, str], loop: asyncio.AbstractEventLoop, stack: ExitStack) -> None:
        self.redis_url = urls[0]
        self.database_url = _own_database(urls[1])
        self.loop, self.stack = loop, stack

    def done(self, coroutine: Awaitable[T]) -> T:
        """What it returns."""
        return self.loop.run_until_complete(coroutine)

    def close_at_end(self, close: Callable[[], Awaitable[object]]) -> None:
        """Awaits that."""
        self.stack.callback(lambda: self.done(close()))


def _own_database(ours: str) -> str:
    """Some name their tables as we do."""
    with psycopg.connect(ours, autocommit=True) as connection:
        connection.execute("CREATE DATABASE peers")
    return urlsplit(ours)._replace(path="/peers").geturl()


Made = Iterator[tuple[str, Callable[[], Any], bool]]
"""Operation, call, and whether what it returns is to be awaited."""


def all_of(
    urls: tuple[str, str], loop: asyncio.AbstractEventLoop, stack: ExitStack, note: Callable[[str], None]
) -> Iterator[Case]:
    """The cases of all that are installed."""
    setting = Setting(urls, loop, stack)
    for name, peer in PEERS.items():
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                made = list(peer(setting))
        except Exception as exc:  # noqa: BLE001  # whatever a peer stumbles over, the others are measured
            note(f"{name}: {type(exc).__name__}: {exc}")
        else:
            for operation, call, is_async in made:
                yield Case(operation, name, call, calls=CALLS, is_async=is_async)


def _same(given: object, expected: object) -> None:
    if given != expected:
        raise ValueError(f"gave {given!r} instead of {expected!r}")


def _halves(things: Sequence[Any]) -> tuple[Callable[[], Any], Callable[[], Any]]:
    """Those to read from, and those to write to."""
    return turning(things[:AGENTS]), turning(things[AGENTS:])


# --- conversations ---

ITEM = {"role": "user", "content": TEXT, "metadata": METADATA}


def _session(setting: Setting) -> Made:
    made = importlib.import_module("agents.extensions.memory.redis_session").RedisSession
    sessions = [made.from_url(name, url=setting.redis_url, key_prefix="openai") for name in NAMES]
    for session in sessions:
        setting.close_at_end(session.close)
    yield from _items(setting, sessions)


def _sql_session(setting: Setting) -> Made:
    made = importlib.import_module("agents.extensions.memory.sqlalchemy_session").SQLAlchemySession
    engines = importlib.import_module("sqlalchemy.ext.asyncio")
    engine = engines.create_async_engine(setting.database_url.replace("postgresql://", "postgresql+asyncpg://", 1))
    setting.close_at_end(engine.dispose)
    yield from _items(setting, [made(name, engine=engine, create_tables=True) for name in NAMES])


def _items(setting: Setting, sessions: list[Any]) -> Made:
    for session in sessions:
        setting.done(session.add_items([ITEM] * MESSAGES))
    reader, writer = _halves(sessions)
    _same(setting.done(reader().get_items(50)), [ITEM] * 50)
    yield "get_history(50)", lambda: reader().get_items(50), True
    yield "save_message", lambda: writer().add_items([ITEM]), True


def _sql_session_not_hot(setting: Setting) -> Made:
    """It reads the same, hot or not."""
    for operation, call, is_async in _sql_session(setting):
        yield operation, call, is_async
        if operation == "get_history(50)":
            yield targets.NOT_HOT, call, is_async


def _langchain(setting: Setting) -> Made:
    made = importlib.import_module("langchain_community.chat_message_histories.redis").RedisChatMessageHistory
    yield from _histories([made(name, url=setting.redis_url, key_prefix="langchain:") for name in NAMES])


def _langchain_postgres(setting: Setting) -> Made:
    made = importlib.import_module("langchain_postgres").PostgresChatMessageHistory
    connection = setting.stack.enter_context(psycopg.connect(setting.database_url))
    made.create_tables(connection, "chat_history")
    names = [f"00000000-0000-4000-8000-{number:012}" for number in range(len(NAMES))]  # it takes UUIDs only
    yield from _histories([made("chat_history", name, sync_connection=connection) for name in names])


def _histories(histories: list[Any]) -> Made:
    human = importlib.import_module("langchain_core.messages").HumanMessage

    def said() -> Any:
        return human(TEXT, additional_kwargs=METADATA)

    for history in histories:
        history.add_messages([said() for _ in range(MESSAGES)])
    reader, writer = _halves(histories)
    _same([(m.content, m.additional_kwargs) for m in reader().messages], [(TEXT, METADATA)] * 50)
    yield "get_history(50)", lambda: reader().messages, False
    yield "save_message", lambda: writer().add_message(said()), False


def _llama(setting: Setting) -> Made:
    store = importlib.import_module("llama_index.storage.chat_store.redis").RedisChatStore(redis_url=setting.redis_url)
    message = importlib.import_module("llama_index.core.llms").ChatMessage

    def said() -> Any:
        return message(role="user", content=TEXT, additional_kwargs=METADATA)

    for name in NAMES:
        store.set_messages(f"llama:{name}", [said() for _ in range(MESSAGES)])
    reader, writer = _halves([f"llama:{name}" for name in NAMES])
    _same([(m.content, m.additional_kwargs) for m in store.get_messages(reader())], [(TEXT, METADATA)] * 50)
    yield "get_history(50)", lambda: store.get_messages(reader()), False
    yield "save_message", lambda: store.add_message(writer(), said()), False


# --- memories ---


def _agno(setting: Setting) -> Made:
    store = importlib.import_module("agno.db.redis").RedisDb(db_url=setting.redis_url)
    memory = importlib.import_module("agno.db.schemas.memory").UserMemory

    def put(name: str) -> Any:
        return store.upsert_user_memory(memory(memory=TEXT, memory_id=name, user_id=name, topics=["the river", "fox"]))

    for name in NAMES:
        put(name)
    reader, writer = _halves(NAMES)
    _same(store.get_user_memory(reader()).memory, TEXT)
    yield "retrieve_memory", lambda: store.get_user_memory(reader()), False
    yield "store_memory", lambda: put(writer()), False


def _langgraph(setting: Setting) -> Made:
    made = importlib.import_module("langgraph.store.postgres").PostgresStore
    store = setting.stack.enter_context(made.from_conn_string(setting.database_url))
    store.setup()
    spaces = [("agents", name, "fact") for name in NAMES]
    for space in spaces:
        store.put(space, "river", DATA)
    reader, writer = _halves(spaces)
    _same(store.get(reader(), "river").value, DATA)
    yield "retrieve_memory", lambda: store.get(reader(), "river"), False
    yield "store_memory", lambda: store.put(writer(), "river", DATA), False


# --- states ---


def _om(setting: Setting) -> Made:
    om, redis = importlib.import_module("redis_om"), importlib.import_module("redis")
    client = setting.stack.enter_context(redis.Redis.from_url(setting.redis_url, decode_responses=True))
    felt = {emotion.value: FELT.get(emotion, 0.0) for emotion in Emotion}  # a model names its fields
    fields = {"__annotations__": dict.fromkeys(felt, float), "Meta": type("Meta", (), {"database": client})}
    model = type(om.HashModel)("Feeling", (om.HashModel,), {**fields, "__module__": __name__}, index=True)
    made = [model(**felt) for _ in NAMES]
    for each in made:
        each.save()
    reader, writer = _halves(made)

    def joy() -> None:
        state = writer()
        state.joy = min(state.joy + 0.0001, 1.0)
        state.save()

    _same({name: getattr(model.get(reader().pk), name) for name in felt}, felt)
    yield "load_state", lambda: model.get(reader().pk), False
    yield "update_emotions", joy, False


# LangGraph's comes first: it makes an index concurrently, for which every open transaction must end.
PEERS: dict[str, Callable[[Setting], Made]] = {
    targets.LANGGRAPH: _langgraph,
    targets.SESSION: _session,
    targets.SQL_SESSION: _sql_session_not_hot,
    targets.LANGCHAIN: _langchain,
    targets.LANGCHAIN_POSTGRES: _langchain_postgres,
    targets.LLAMA: _llama,
    targets.AGNO: _agno,
    targets.OM: _om,
}
