"""The two servers for those who have none: bundled Valkey and PostgreSQL, shared through a data directory.

    with start() as servers:
        use(servers.redis_url, servers.database_url)

The first user of a data directory starts a supervisor, which starts the servers; later users join; when the last
one has gone, all of it stops. How, and what happens when something is killed: see the docstring of `supervisor`.
"""

from __future__ import annotations

from banshee_memory.embedded.binaries import Binaries
from banshee_memory.embedded.client import Servers, start

__all__ = ["Binaries", "Servers", "start"]
