"""The settings of `config.py`: 100 epochs of SGD with crop, flip and Cutout.

    cifar100 train --recipe baseline        (or: python train.py)

78.74 % at the last epoch, single view (seed 0, n = 1; benchmarks/results/h100/baseline_100). Time, from the measured
speed of the loop: five and a half hours on two CPU cores with AMX-BF16.
"""

from cifar100.config import Config


def config(epochs: int | None = None) -> Config:
    """The defaults of `Config`; `epochs` replaces their number of epochs."""
    return Config() if epochs is None else Config().replace(epochs=epochs)
