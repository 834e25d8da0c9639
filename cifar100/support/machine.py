"""Hardware that is available to the process: processor, cores and memory."""

from __future__ import annotations

import os
import platform
import subprocess
import sys
from contextlib import suppress
from pathlib import Path


def available_memory() -> int | None:
    """Memory that this process may still allocate, in bytes, on the machine or in the container; None if unknown."""
    known = []
    with suppress(OSError, ValueError, IndexError):  # not Linux
        lines = Path("/proc/meminfo").read_text(encoding="ascii").splitlines()
        known += [1024 * int(line.split()[1]) for line in lines if line.startswith("MemAvailable:")]
    with suppress(OSError, ValueError):  # not in a container, or "max": no limit
        known.append(int(Path("/sys/fs/cgroup/memory.max").read_text(encoding="ascii")))
    if not known and hasattr(os, "sysconf") and "SC_PHYS_PAGES" in os.sysconf_names:  # macOS: total memory
        known.append(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"))
    return min(known, default=None)


def processor_name() -> str:
    """The model name of the processor, such as "Apple M3 Max"; the architecture if it is unknown."""
    with suppress(OSError, subprocess.SubprocessError, StopIteration):
        if sys.platform == "darwin":
            return subprocess.check_output(
                ["/usr/sbin/sysctl", "-n", "machdep.cpu.brand_string"], text=True, timeout=5
            ).strip()
        lines = Path("/proc/cpuinfo").read_text(errors="replace").splitlines()
        return next(line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return platform.processor() or platform.machine()


def describe_machine() -> str:
    """Processor and number of cores: "Apple M3 Max, 16 cores"."""
    return f"{processor_name()}, {os.cpu_count()} cores"


def usable_cores() -> int:
    """Number of cores that this process may run on."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
