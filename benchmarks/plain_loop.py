"""A training loop as in tutorials, as a reference for ours; prints images/s.

    python benchmarks/plain_loop.py fp32|bf16

fp32 is in PyTorch's default memory format, bf16 under autocast in channels_last. A DataLoader with two workers crops,
flips and normalizes one PIL image at a time; the same network and optimizer, on images of CIFAR's size.
"""

from __future__ import annotations

import argparse
import random
import time

import numpy as np
import torch
from PIL import Image, ImageOps
from torch.nn import functional as F
from torch.utils.data import DataLoader, Dataset

from cifar100.config import Config
from cifar100.model import resnet18

MEAN, STD = (np.array(values, np.float32) for values in (Config().augment.mean, Config().augment.std))
BATCH_SIZE, WARMUP_STEPS, STEPS = 128, 2, 10


class Images(Dataset[tuple[torch.Tensor, int]]):
    """Random PIL images, each transformed by itself."""

    def __init__(self, count: int) -> None:
        pixels = np.random.default_rng(0).integers(0, 256, (count, 32, 32, 3), np.uint8)
        self.images = [Image.fromarray(image) for image in pixels]

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> tuple[torch.Tensor, int]:
        image = ImageOps.expand(self.images[index], 4)
        left, top = random.randrange(9), random.randrange(9)
        image = image.crop((left, top, left + 32, top + 32))
        if random.random() < 0.5:
            image = ImageOps.mirror(image)
        pixels = (np.asarray(image, np.float32) / 255 - MEAN) / STD
        return torch.from_numpy(pixels.transpose(2, 0, 1).copy()), index % 100


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("precision", choices=("fp32", "bf16"))
    is_bf16 = parser.parse_args().precision == "bf16"
    memory_format = torch.channels_last if is_bf16 else torch.contiguous_format
    model = resnet18()
    model.to(memory_format=memory_format)  # pyright: ignore[reportCallIssue] - only in the overloads of Tensor
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9, weight_decay=5e-4, nesterov=True)
    loader = DataLoader(
        Images((WARMUP_STEPS + STEPS) * BATCH_SIZE), batch_size=BATCH_SIZE, shuffle=True, num_workers=2, drop_last=True
    )
    start = time.perf_counter()
    for number, (images, labels) in enumerate(loader):
        if number == WARMUP_STEPS:
            start = time.perf_counter()
        with torch.autocast("cpu", torch.bfloat16, enabled=is_bf16):
            loss = F.cross_entropy(model(images.to(memory_format=memory_format)), labels, label_smoothing=0.1)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        loss.item()  # as in tutorials
    print(STEPS * BATCH_SIZE / (time.perf_counter() - start))


if __name__ == "__main__":
    main()
