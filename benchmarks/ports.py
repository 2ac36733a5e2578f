"""Ports for listeners that many processes open at about the same time."""

from __future__ import annotations

import itertools
import socket

# Below where Linux takes the ports of outgoing connections from (32768), so that none of them is in the way.
_FIRST, _LAST = 20_000, 32_000
_numbers = itertools.cycle(range(_FIRST, _LAST))


def free_port() -> int:
    """A port that nobody listens on, and that was not given out for long."""
    for port in itertools.islice(_numbers, _LAST - _FIRST):
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("", port))
            except OSError:
                continue
            return port
    raise RuntimeError("no port is free")
