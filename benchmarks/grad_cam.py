"""Our class activation maps against Grad-CAM of the published `grad-cam` package, on real test images.

    pip install --no-deps grad-cam==1.5.7 ttach==0.0.3
    python benchmarks/grad_cam.py CHECKPOINT --data-dir DIR

The package is not an extra because it needs torchvision, whose wheels pin a version and build of torch. Grad-CAM uses
nothing of torchvision, so empty modules replace it here. The package scales its maps to 0..1 before and after resizing
them to 32x32; ours are processed in the same way. Writes benchmarks/results/grad_cam.json.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from types import ModuleType

import cv2
import numpy as np
import torch
from circumstances import circumstances, save_result

from cifar100.augmentation.batched import normalize
from cifar100.checkpoints.weights import load_weights
from cifar100.compute.device import select_device
from cifar100.config import Config
from cifar100.dataset import load_dataset
from cifar100.prediction.cam import normalize_cams
from cifar100.prediction.torch_backend import TorchBackend

IMAGES = 200


def install_stub_module(name: str, **content: object) -> None:
    """Install an empty module with this name."""
    module = ModuleType(name)
    vars(module).update(content)
    sys.modules[name] = module


def scale_to_unit(heatmap: np.ndarray) -> np.ndarray:
    """The heatmap scaled to 0..1."""
    heatmap = heatmap - heatmap.min()
    return heatmap / (1e-7 + heatmap.max())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkpoint")
    parser.add_argument("--data-dir", type=Path, required=True)
    args = parser.parse_args()
    install_stub_module("torchvision")
    install_stub_module("torchvision.transforms", Compose=None, Normalize=None, ToTensor=None)
    install_stub_module("torchvision.transforms.functional", resize=None)
    import pytorch_grad_cam  # pyright: ignore[reportMissingImports]
    from pytorch_grad_cam.utils.model_targets import (  # pyright: ignore[reportMissingImports]
        ClassifierOutputTarget,
    )

    checkpoint = load_weights(args.checkpoint)
    model = checkpoint.build().eval()
    test = load_dataset(Config().replace(data_dir=args.data_dir)).test
    pixels = test.images[test.spread(IMAGES)]
    images = normalize(torch.from_numpy(pixels), tuple(checkpoint.mean), tuple(checkpoint.std))
    logits, cams = TorchBackend(checkpoint, select_device("cpu", "fp32")).logits_and_cams(pixels)
    result: dict[str, object] = {}
    for name, classes in (("of the top-1 class", None), ("of any class", [i % 100 for i in range(IMAGES)])):
        maps = normalize_cams(cams[range(IMAGES), logits.argmax(axis=1) if classes is None else classes])
        ours = np.stack([scale_to_unit(cv2.resize(scale_to_unit(heatmap), (32, 32))) for heatmap in maps])
        targets = None if classes is None else [ClassifierOutputTarget(i) for i in classes]
        published = pytorch_grad_cam.GradCAM(model=model, target_layers=[model.layer4])
        theirs = published(input_tensor=images, targets=targets)
        result[name] = {"images": IMAGES, "largest difference": float(np.abs(ours - theirs).max())}
    result["circumstances"] = circumstances() | {"grad-cam": "1.5.7"}
    save_result("grad_cam.json", result)


if __name__ == "__main__":
    main()
