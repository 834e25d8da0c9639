"""The environment of a measurement, which is written with every result under benchmarks/results/."""

from __future__ import annotations

import json
import os
import platform
import shlex
import subprocess
import sys
from collections.abc import Mapping
from datetime import date
from pathlib import Path

import numpy
import torch

from cifar100.support.machine import processor_name

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "benchmarks" / "results"

FLOP_PER_IMAGE = 3 * 2 * 0.556e9
"""Training ResNet-18 on one 32x32 image: 0.556e9 multiply-adds forward, twice that backward, 2 FLOP each."""


def circumstances() -> dict[str, str | int]:
    """The command, the commit ($COMMIT if the tree is not a git checkout), hardware and versions, as JSON types."""
    return {
        "command": _command(),
        "date": date.today().isoformat(),
        "commit": os.environ.get("COMMIT") or commit(),
        "cpu": cpu_name(),
        "cores": os.cpu_count() or 0,
        "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else "",
        "torch": str(torch.__version__),
        "numpy": numpy.__version__,
        "python": platform.python_version(),
    }


def save_result(name: str, result: Mapping[str, object]) -> None:
    """Write a result under benchmarks/results/, and print it."""
    text = json.dumps(result, indent=2) + "\n"
    (RESULTS / name).write_text(text)
    print(text)


def _command() -> str:
    """The command line, with DIR in place of absolute paths."""
    words = [word.replace(f"{ROOT}/", "") for word in sys.argv]
    return shlex.join(["python", *("DIR" if Path(word).is_absolute() else word for word in words)])


def cpu_name() -> str:
    """The name of the processor and its bf16 instructions."""
    cpuinfo = Path("/proc/cpuinfo")
    text = cpuinfo.read_text() if cpuinfo.exists() else ""
    features = [label for flag, label in (("avx512_bf16", "AVX512-BF16"), ("amx_bf16", "AMX-BF16")) if flag in text]
    return " ".join([processor_name(), *features])


def commit() -> str:
    """The commit of the tree, with "+" if files are modified; "" if it is unknown."""
    return _git("rev-parse", "--short", "HEAD") + ("+" if _git("status", "--porcelain", "-uno") else "")


def _git(*words: str) -> str:
    try:
        return subprocess.run(["git", *words], cwd=ROOT, capture_output=True, text=True, check=False).stdout.strip()
    except OSError:  # git is not installed
        return ""
