"""No public method is left out of the conformance suite: it has a deed there, which calls it, as is shown there."""

from __future__ import annotations

import pytest

from banshee_memory import AsyncMemoryPlugin, MemoryPlugin
from tests.conformance.test_every_method import APART, DEEDS, ask_for_deeds, public_methods


@pytest.mark.parametrize("plugin", [MemoryPlugin, AsyncMemoryPlugin])
def test_every_method_has_a_deed(plugin: type[MemoryPlugin]) -> None:
    deeds = {name.partition(" ")[0] for name in DEEDS}
    left_out = public_methods(plugin) - deeds - set(APART)
    assert not left_out, ask_for_deeds(plugin, left_out)


def test_every_deed_and_exception_is_for_a_method() -> None:
    methods = public_methods(MemoryPlugin) | public_methods(AsyncMemoryPlugin)
    assert {name.partition(" ")[0] for name in DEEDS} | set(APART) <= methods
