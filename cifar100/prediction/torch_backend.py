"""A checkpoint as a `Backend`, by PyTorch."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from cifar100.augmentation.batched import normalize
from cifar100.checkpoints.checkpoint import Checkpoint
from cifar100.checkpoints.weights import state_dict_sha256
from cifar100.compute.device import Compute
from cifar100.model import fold_batch_norms
from cifar100.prediction.model_info import ModelInfo


class TorchBackend:
    """`Backend` of a checkpoint: batch norms folded into the convolutions, weights in the precision of `compute`.

    Raises UserError if the weights do not fit their network.
    """

    def __init__(self, checkpoint: Checkpoint, compute: Compute, source: str | Path = "") -> None:
        network = checkpoint.build()
        num_parameters = sum(parameter.numel() for parameter in network.parameters())
        self.info = ModelInfo.from_fields(
            vars(checkpoint),
            source,
            sha256=state_dict_sha256(checkpoint.weights),
            network=f"{checkpoint.model}, {num_parameters:,} parameters",
            hardware=str(compute),
            notes=tuple(checkpoint.notes),
        )
        self.network = compute.prepare(fold_batch_norms(network)).to(compute.dtype)
        self.compute = compute
        self.mean, self.std = tuple(checkpoint.mean), tuple(checkpoint.std)

    def logits(self, pixels: np.ndarray) -> np.ndarray:
        return _to_numpy(self._forward(pixels)[1])

    def logits_and_cams(self, pixels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        maps, logits = self._forward(pixels)
        cams = torch.einsum("bkhw,ck->bchw", maps.float(), self.network.fc.weight.float())
        return _to_numpy(logits), _to_numpy(cams)

    def features(self, pixels: np.ndarray) -> np.ndarray:
        return _to_numpy(self._forward(pixels)[0].mean(dim=(2, 3)))

    def _forward(self, pixels: np.ndarray) -> tuple[Tensor, Tensor]:
        """Feature maps [B, D, h, w] and logits [B, C], on the device."""
        with torch.inference_mode(), self.compute.autocast():
            images = normalize(torch.from_numpy(pixels).to(self.compute.device), self.mean, self.std)
            maps = self.network.feature_maps(images)
            return maps, self.network.fc(maps.mean(dim=(2, 3)))


def _to_numpy(values: Tensor) -> np.ndarray:
    return values.float().cpu().numpy()
