"""Freed memory goes back to the node. It is the process's own affair: only the command line calls this.

glibc raises the size from which it maps blocks by themselves whenever such a block is freed
(https://man7.org/linux/man-pages/man3/mallopt.3.html, "dynamic adjustment of the mmap threshold"). After the
first bodies of some MiB everything then comes from heaps, one for each thread, which keep what was freed: a
restore of 600 MiB peaked at 204 MiB. So the thresholds are held. And each of the many threads gets a heap of
its own, up to eight for a processor of the node, where two are enough: a first backup of 5,000 files took
57.5 MiB with sixteen heaps, and 55 with two, for the same CPU.

The thresholds lie above the buffers in which a body comes from the network (up to 400 KiB): each of them
mapped by itself is given back and made anew, zeroed page by page. A restore of 600 MiB took 310,000 page
faults and 1.2 s of system time with 128 KiB, and takes 37,000 and 0.6 s; its peak of 60 MiB stays.
"""

from __future__ import annotations

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD, _M_ARENA_MAX = -1, -3, -8
_THRESHOLD_BYTES = 512 * 1024
_HEAPS = 2


def give_back() -> None:
    """Hold the thresholds and the number of heaps; nothing where the C library has no such call."""
    _call("mallopt", _M_MMAP_THRESHOLD, _THRESHOLD_BYTES)
    _call("mallopt", _M_TRIM_THRESHOLD, _THRESHOLD_BYTES)
    _call("mallopt", _M_ARENA_MAX, _HEAPS)


def trim() -> None:
    """Give back what lies free between what is used, in every heap: some milliseconds.

    After a first backup of 5,000 files that was 7 of 65 MiB, when each of the many threads had a heap.
    """
    _call("malloc_trim", 0)


def _call(name: str, *arguments: int) -> None:
    import ctypes

    function = getattr(ctypes.CDLL(None), name, None)
    if function is not None:
        function(*arguments)
