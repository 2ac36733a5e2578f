"""The bytes of small files that were just sent: what rides in a pack at the end need not be read again."""

from __future__ import annotations

import threading

# A first backup of 5,000 files has 8 MiB of them.
MOST_BYTES = 8 * 1024 * 1024


class AtHand:
    """Bodies by path, each with its SHA-256, as many as fit; thread-safe."""

    def __init__(self, most_bytes: int = MOST_BYTES) -> None:
        self._bodies: dict[str, tuple[str, bytes | memoryview]] = {}
        self._free_bytes = most_bytes
        self._lock = threading.Lock()

    def keep(self, path: str, digest: str, body: bytes | memoryview) -> None:
        """Have the body with this digest at hand, if there is room."""
        with self._lock:
            if len(body) <= self._free_bytes and path not in self._bodies:
                self._free_bytes -= len(body)
                self._bodies[path] = digest, body

    def take(self, path: str, digest: str) -> bytes | memoryview | None:
        """The body of `path` with exactly this digest, which is not at hand any longer."""
        kept, body = self._bodies.pop(path, ("", b""))
        return body if kept == digest else None
