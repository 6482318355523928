"""docs/api.md is what the public names say, and they say enough."""

from __future__ import annotations

import inspect
import re

import pytest

import banshee_memory
from banshee_memory import BansheeError, Emotion, EmotionalEvent, MemoryPolicy, Settings
from tests.docs.reference import CLIENTS, FILE, STORES, fields, methods, page

PAIRS = {"plugin": CLIENTS, **STORES}
METHODS = [(pair, name) for pair, (kind, _) in PAIRS.items() for name in methods(kind)]
RENAMED = {"close": "aclose"}


def test_the_reference_is_what_the_names_say() -> None:
    assert FILE.read_text() == page(), "write it anew: python -m tests.docs.reference"


@pytest.mark.parametrize("name", banshee_memory.__all__)
def test_every_public_name_is_in_it(name: str) -> None:
    described = getattr(banshee_memory, name) is EmotionalEvent or name == "__version__"
    heading = rf"`{name}` is " if described else rf"^##+ {name}$"
    assert len(re.findall(heading, FILE.read_text(), re.MULTILINE)) == 1


@pytest.mark.parametrize(("pair", "name"), METHODS)
def test_both_clients_have_one_description(pair: str, name: str) -> None:
    sync, awaited = PAIRS[pair]
    one, other = methods(sync)[name], methods(awaited)[RENAMED.get(name, name)]
    assert one.doc == other.doc
    assert one.arguments == other.arguments
    assert one.returns == other.returns.replace("Async", "")


def test_neither_client_has_more() -> None:
    for sync, awaited in PAIRS.values():
        assert {RENAMED.get(name, name) for name in methods(sync)} == set(methods(awaited))


@pytest.mark.parametrize(("pair", "name"), METHODS)
def test_every_method_is_described(pair: str, name: str) -> None:
    doc = methods(PAIRS[pair][0])[name].doc
    assert doc.endswith((".", ":"))
    assert len(doc) > 15


@pytest.mark.parametrize("kind", [Settings, MemoryPolicy])
def test_every_setting_is_described(kind: type) -> None:
    assert all(field.default and field.doc for field in fields(kind))


def test_every_class_is_described() -> None:
    public = [getattr(banshee_memory, name) for name in banshee_memory.__all__]
    for kind in (kind for kind in public if isinstance(kind, type)):
        assert inspect.cleandoc(kind.__doc__ or "").partition("\n")[0].endswith(("…", ".", ":"))


def test_every_emotion_is_in_it() -> None:
    for emotion in Emotion:
        assert f"| `{emotion.name}` | `{emotion}` | {emotion.rate:g} |" in FILE.read_text()


def test_the_tree_of_errors_names_each() -> None:
    tree = FILE.read_text().partition("```text\n")[2].partition("```")[0]
    kinds: list[type[BansheeError]] = [BansheeError, *BansheeError.__subclasses__()]
    for kind in kinds:
        assert (kind.__name__ in tree) is (kind.__name__ in banshee_memory.__all__)
