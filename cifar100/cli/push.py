"""cifar100 push"""

from __future__ import annotations

import os
import tempfile
from dataclasses import dataclass
from pathlib import Path

from tyro.conf import Positional

from cifar100.cli.options import DEFAULT_CHECKPOINT
from cifar100.support.errors import UserError
from cifar100.support.terminal import emit


@dataclass(frozen=True, kw_only=True)
class Push:
    """Upload a model with a model card to the Hugging Face Hub.

    Log in first: `hf auth login`, or $HF_TOKEN.

    Others then load it with load_predictor("hf://user/model").

    The ONNX files and config.json of an earlier push are replaced or deleted.
    """

    repo: Positional[str]
    """Repository, as user/model; created if missing."""

    checkpoint: Path = DEFAULT_CHECKPOINT
    """Model to upload."""

    private: bool = False
    """Create the repository as private."""

    folder: Path | None = None
    """Only write the files to this directory, a new one or that of an earlier push; nothing is uploaded."""

    def run(self) -> int:
        from cifar100.checkpoints.hub import GENERATED, WEIGHTS, upload_model
        from cifar100.checkpoints.model_card import model_card
        from cifar100.checkpoints.weights import load_weights, save_weights
        from cifar100.support.files import atomic_write

        if self.repo.count("/") != 1:
            raise UserError("push.repo", f"{self.repo} is not a repository on the Hub: it must be user/model.")
        checkpoint = load_weights(self.checkpoint)
        checkpoint.build()  # raises if the weights do not fit
        from cifar100.export import own_images
        from cifar100.export.transformers_js import write_layout

        train, test = own_images(checkpoint, None, emit)
        with tempfile.TemporaryDirectory() as temporary:
            folder = self.folder or Path(temporary)
            try:
                folder.mkdir(parents=True, exist_ok=True)
            except OSError as error:
                raise UserError("push.folder", f"--folder {folder} cannot be created ({error.strerror}).") from None
            own = (WEIGHTS, "model.json")
            others = [name for name in ("README.md", *own, *GENERATED) if os.path.exists(folder / name)]
            if others and not all(os.path.isfile(folder / name) for name in own):
                message = f"--folder {folder} has another {others[0]}, which would be overwritten: name a new one."
                raise UserError("push.folder", message)
            for generated in (path for pattern in GENERATED for path in folder.glob(pattern)):
                generated.unlink()  # of an earlier push
            save_weights(checkpoint, folder / WEIGHTS)
            transformers_js = True
            try:
                write_layout(checkpoint, folder, train, test, say=emit)
            except UserError as error:
                transformers_js = False
                emit(f"Without the files of transformers.js: {error}")
            atomic_write(folder / "README.md", model_card(checkpoint, self.repo, transformers_js=transformers_js))
            if self.folder is None:
                emit(upload_model(folder, self.repo, private=self.private))
            else:
                emit(f"Written to {folder}; nothing was pushed.")
        return 0
