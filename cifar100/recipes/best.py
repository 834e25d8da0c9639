"""As far as one plain resnet18 goes.

    cifar100 train --recipe best            (--epochs 100 for the shorter form)

Chosen by what is published; neither compared with other choices (benchmarks/study.py) nor run to its end by us yet, so
no accuracy is claimed. CutMix in place of cutout, two gradients a step (friendly SAM), averaged weights, stronger
decay that leaves the norms alone. Wants a GPU: on two CPU cores an epoch takes a quarter of an hour.
"""

from cifar100.config import Config


def config() -> Config:
    """The baseline with these differences."""
    return Config().replace(
        epochs=200,
        lr=0.05,
        weight_decay=1e-3,
        decay_norms=False,
        zero_init_residual=True,
        alternating_flip=True,
        cutout_size=0,
        cutmix_probability=0.5,
        ema_decay=0.999,
        sam_rho=0.2,
        sam_friendly=0.95,
    )
