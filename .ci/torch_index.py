"""Print the pip option for the CPU build of PyTorch: on Linux without an NVIDIA driver, if the CPU index is reachable.

Prints nothing otherwise, and pip installs the build of its own index. The index is the first argument.
"""

from __future__ import annotations

import shutil
import sys
import urllib.request
from pathlib import Path


def is_reachable(index: str) -> bool:
    """Whether the index serves a page about torch within five seconds."""
    try:
        with urllib.request.urlopen(f"{index.rstrip('/')}/torch/", timeout=5) as response:
            return response.status == 200
    except (OSError, ValueError):
        return False


def main(index: str) -> None:
    has_nvidia_driver = Path("/proc/driver/nvidia").exists() or shutil.which("nvidia-smi") is not None
    if sys.platform == "linux" and not has_nvidia_driver and is_reachable(index):
        print("--extra-index-url", index)


if __name__ == "__main__":
    main(sys.argv[1])
