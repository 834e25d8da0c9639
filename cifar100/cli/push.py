"""cifar100 push"""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from pathlib import Path

from tyro.conf import Positional

from cifar100.support.errors import UserError
from cifar100.support.terminal import emit


@dataclass(frozen=True, kw_only=True)
class Push:
    """Upload a model with a model card to the Hugging Face Hub.

    Others then load it with load_predictor("hf://user/model"). Log in first: `hf auth login`, or $HF_TOKEN.
    """

    repo: Positional[str]
    """Repository, as user/model; created if missing."""

    checkpoint: Path = Path("logs/cifar100/best_model.pth")
    """Model to upload."""

    private: bool = False
    """Create the repository as private."""

    folder: Path | None = None
    """Only write the files to this directory; nothing is uploaded."""

    def run(self) -> int:
        from cifar100.checkpoints.hub import WEIGHTS, upload
        from cifar100.checkpoints.model_card import model_card
        from cifar100.checkpoints.weights import load_weights, save_weights
        from cifar100.support.files import atomic_write

        if self.repo.count("/") != 1:
            raise UserError(f"{self.repo} is no place on the hub: it must be user/model.")
        checkpoint = load_weights(self.checkpoint)
        checkpoint.build()  # refuses what would be of no use to others
        with tempfile.TemporaryDirectory() as temporary:
            folder = self.folder or Path(temporary)
            try:
                folder.mkdir(parents=True, exist_ok=True)
            except OSError as error:
                raise UserError(f"--folder {folder} cannot be made ({error.strerror}).") from None
            save_weights(checkpoint, folder / WEIGHTS)
            atomic_write(folder / "README.md", model_card(checkpoint, self.repo))
            if self.folder is None:
                emit(upload(folder, self.repo, private=self.private))
            else:
                emit(f"Written to {folder}; nothing was pushed.")
        return 0
