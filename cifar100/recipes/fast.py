"""Over 73 % in 9 epochs.

    cifar100 train --recipe fast            (or: make train; --epochs N for a shorter or longer run)

74.2 % at the last epoch (3 seeds: 74.26, 74.26, 74.04) in 16 minutes of reading and training on two CPU cores with
AMX-BF16 (benchmarks/results/fast_9_epochs); 73.5 % with a crop padding of 4 (3 seeds: 73.25, 73.42, 73.87) on an H100.
Progressive resizing, Muon for the convolutions, stronger label smoothing; no Cutout, which helps only long runs. 8
epochs give 74.1 % (3 seeds), 14 epochs 75.9 % (2 seeds), 30 epochs 77.5 % and 60 epochs 78.0 % (1 seed each;
benchmarks/results/fast_8_epochs and so on). For longer runs: --recipe best.

500 divides the 50,000 images, so that no epoch ends with a smaller batch, for which a GPU would select kernels again.
"""

from cifar100.config import Config

MAX_SHORT_EPOCHS, MAX_MEDIUM_EPOCHS = 8, 9
"""Up to these numbers of epochs a run underfits: crops are padded by 1 or 2 pixels instead of 4, and in a short run the
warmup takes one epoch instead of two (+0.49 points together in eight epochs, benchmarks/results/h200)."""


def config(epochs: int = 9) -> Config:
    """The settings for this number of epochs."""
    is_short = epochs <= MAX_SHORT_EPOCHS
    return Config().replace(
        epochs=epochs,
        batch_size=500,
        train_sizes=("16:4", "24:3", "32:2"),
        crop_padding=1 if is_short else 2 if epochs <= MAX_MEDIUM_EPOCHS else 4,
        cutout_size=0,
        alternating_flip=True,
        optimizer="muon",
        muon_lr=0.06,
        lr=0.3,
        schedule="linear",
        warmup_epochs=1 if is_short else 2,
        decay_norms=False,
        label_smoothing=0.2,
        report=False,
    )
