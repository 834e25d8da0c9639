"""Writing a checkpoint while training continues."""

from __future__ import annotations

import copy
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

from cifar100.checkpoints.checkpoint import Checkpoint


class BackgroundSave:
    """Writes one checkpoint at a time in a thread, from a copy of its tensors.

    Call `wait` before writing anything that depends on the file, and `close` at the end.
    """

    def __init__(self) -> None:
        self._executor = ThreadPoolExecutor(max_workers=1)
        self._pending: Future[None] | None = None

    def start(self, checkpoint: Checkpoint, path: Path) -> None:
        """Start to write a checkpoint; training may change its tensors as soon as this returns."""
        self.wait()
        self._pending = self._executor.submit(copy.deepcopy(checkpoint).save, path)

    def wait(self) -> None:
        """Wait until the file is complete. Raises RunFailed if it could not be written."""
        pending, self._pending = self._pending, None
        if pending is not None:
            pending.result()

    def close(self) -> None:
        """Stop the thread after the current file. Raises nothing, as the run may be ending with another error."""
        self._executor.shutdown()
