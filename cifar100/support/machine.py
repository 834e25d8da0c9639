"""What this machine offers to the process: cores and memory."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path


def available_memory() -> int | None:
    """Bytes that this process may still allocate, on the machine or in the container; None if unknown."""
    known = []
    with suppress(OSError, ValueError, IndexError):  # no Linux
        lines = Path("/proc/meminfo").read_text(encoding="ascii").splitlines()
        known += [1024 * int(line.split()[1]) for line in lines if line.startswith("MemAvailable:")]
    with suppress(OSError, ValueError):  # no container, or "max": no limit
        known.append(int(Path("/sys/fs/cgroup/memory.max").read_text(encoding="ascii")))
    if not known and hasattr(os, "sysconf") and "SC_PHYS_PAGES" in os.sysconf_names:  # a Mac: all that it has
        known.append(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"))
    return min(known, default=None)


def usable_cores() -> int:
    """Number of cores that this process may run on."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
