"""Where Redis is: the URL as a person may see it, and the options of every connection to it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any
from urllib.parse import urlsplit

from banshee_memory.errors import ConfigurationError
from banshee_memory.settings import Settings


def where(url: str) -> str:
    """The URL without user and password, for messages."""
    parts = urlsplit(url)
    if parts.scheme not in ("redis", "rediss", "unix"):
        raise ConfigurationError(f"REDIS_URL begins with {parts.scheme!r}; it takes redis://, rediss:// and unix://")
    if parts.scheme == "unix":
        return f"unix://{parts.path}"
    return f"{parts.scheme}://{parts.hostname or 'localhost'}:{parts.port or 6379}{parts.path}"


def options(settings: Settings, url: str, retry: Callable[[Any, int], object]) -> dict[str, Any]:
    """What every connection is opened with.

    No retry: a write that was cut off may have been applied, and only its caller knows whether it has a key to repeat
    it with. RESP2, so that replies look the same on every server.
    """
    from redis.backoff import NoBackoff

    chosen: dict[str, Any] = {
        "protocol": 2,
        "decode_responses": False,
        "socket_timeout": settings.call_timeout + settings.durability_timeout,
        "socket_connect_timeout": settings.connect_timeout,
        "retry": retry(NoBackoff(), 0),
    }
    if settings.redis_password is not None and urlsplit(url).password is None:
        chosen["password"] = settings.redis_password
    if urlsplit(url).scheme == "unix":
        del chosen["socket_connect_timeout"]
    return chosen
