"""Fine-tuning on your own classes.

    cifar100 train --recipe finetune --data-dir my_photos      (--init-from FILE for weights other than the bundled)

78 % with 50 images per class of CIFAR-10; training from scratch gives 40 % (n = 2; benchmarks/results/finetune*.json).
About 80 s of steps on two cores with AMX-BF16, ten minutes with AVX2.
"""

from pathlib import Path

from cifar100.config import Config


def config(epochs: int = 30) -> Config:
    """The settings for this number of epochs."""
    return Config().replace(
        init_from=Path("pretrained"),
        epochs=epochs,
        batch_size=64,
        lr=0.01,
        warmup_epochs=1,
        cutout_size=0,
    )
