"""Every hyperparameter in one place. `Config()` is the baseline recipe: edit a value here and the next run uses it.

Each class below is one section; each field is a flag of `cifar100 train` by the same name (`weight_decay` is
`--weight-decay`). A flag beats a recipe (`cifar100/recipes/`), a recipe beats this file.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

from cifar100.support.old_settings import restore_settings
from cifar100.support.settings import ConfigSection, check, flag, plain
from cifar100.support.train_sizes import check_sizes

DatasetName = Literal["cifar100", "synthetic"]
ModelName = Literal["resnet18", "resnet34"]
DeviceName = Literal["auto", "cpu", "cuda", "mps"]
PrecisionName = Literal["auto", "fp32", "bf16", "fp16"]
PolicyName = Literal["none", "trivial", "rand"]

USE_MPS = True
"""Use the Apple-silicon GPU, if there is one, when `device` is "auto"."""


@dataclass(frozen=True, kw_only=True)
class DataConfig(ConfigSection):
    """The dataset and its splits."""

    dataset: DatasetName = "cifar100"
    """"cifar100" reads whatever the data directory holds: CIFAR-100, CIFAR-10 or class folders. "synthetic" is a small
    generated dataset for smoke tests."""

    image_size: int = 32
    """Resolution, in pixels, that custom images are resized and center-cropped to. CIFAR images are always 32x32."""

    test_fraction: float = 0.2
    """Fraction of each class held out for testing if the folder has no test/."""

    split_seed: int = 0
    """Seed of that split, independent of `seed`."""

    val_fraction: float = 0.0
    """Stratified fraction of the training set held out to select the best checkpoint. 0: it is selected on the test
    set, and labeled so."""


@dataclass(frozen=True, kw_only=True)
class AugmentConfig(ConfigSection):
    """Augmentation of training images. Test images are only normalized."""

    sampler: Literal["shuffle", "balanced"] = "shuffle"
    """Images of an epoch: each once, or "balanced": the same number from each class, for classes of unequal size."""

    crop_padding: int = 4
    """Zero padding before the random crop, in pixels. 0: no random crop."""

    flip_probability: float = 0.5
    """Probability of a horizontal flip."""

    alternating_flip: bool = False
    """Flip each image in alternate epochs instead of at random (Jordan 2024, https://arxiv.org/abs/2404.00498).
    `flip_probability` then only matters if it is 0."""

    cutout_size: int = 16
    """Side of the Cutout square in pixels, filled with the mean (DeVries & Taylor 2017). 0: no Cutout."""

    cutout_probability: float = 0.5
    """Probability of applying Cutout."""

    policy: PolicyName = "none"
    """Automatic augmentation before the crop: "trivial" (TrivialAugmentWide, https://arxiv.org/abs/2103.10158) or
    "rand" (RandAugment, https://arxiv.org/abs/1909.13719)."""

    rand_ops: int = 2
    """RandAugment N: operations per image."""

    rand_magnitude: int = 9
    """RandAugment M: magnitude of the operations, 0..30."""

    mixup_probability: float = 0.0
    """Probability of Mixup per image (Zhang et al. 2018)."""

    mixup_alpha: float = 0.2
    """Mixup: lambda ~ Beta(alpha, alpha)."""

    cutmix_probability: float = 0.0
    """Probability of CutMix per image, exclusive with Mixup (Yun et al. 2019)."""

    cutmix_alpha: float = 1.0
    """CutMix: area ratio ~ Beta(alpha, alpha)."""

    train_sizes: tuple[int | str, ...] = ()
    """Progressive resizing (Tan & Le 2021, https://arxiv.org/abs/2104.00298): training resolutions, as SIZE:WEIGHT
    (16:4 24:3 32:2 divides the run in these proportions) or as one size per epoch, the last of which is repeated.
    Empty: native resolution. Evaluation is always at native resolution."""

    mean: tuple[float, float, float] = (0.5071, 0.4867, 0.4408)
    """Per-channel mean used for normalization, in 0..1."""

    std: tuple[float, float, float] = (0.2675, 0.2565, 0.2761)
    """Per-channel standard deviation used for normalization, in 0..1."""

    pipeline: Literal["batched", "albumentations"] = "batched"
    """Augmentation backend: "batched" runs on the device; "albumentations" runs per image on the CPU, in --num-workers
    processes (pip install 'cifar100[albumentations]')."""

    def __post_init__(self) -> None:
        super().__post_init__()
        mixed = self.mixup_probability + self.cutmix_probability
        message = f"--mixup-probability and --cutmix-probability add up to {mixed:g}; at most 1 is allowed."
        check(mixed <= 1, "cutmix_probability", message)
        check_sizes(self.train_sizes)
        # albumentations seeds by (seed, epoch, row), so images that "balanced" repeats would be augmented identically
        for name in ("alternating_flip", "policy", "sampler"):
            fits = self.pipeline == "batched" or getattr(self, name) == getattr(AugmentConfig, name)  # the default
            check(fits, name, f"{flag(name)} requires --pipeline batched; leave one of the two out.")
        check(max(self.mean) <= 1 and min(self.mean) >= 0, "mean", f"--mean is {self.mean}; pixels are in 0..1.")
        check(min(self.std) >= 1e-6 and max(self.std) <= 1, "std", f"--std is {self.std}; pixels are in 0..1.")

    @property
    def mixes(self) -> bool:
        """Whether Mixup or CutMix is used, so that targets are soft labels."""
        return self.mixup_probability + self.cutmix_probability > 0


@dataclass(frozen=True, kw_only=True)
class ModelConfig(ConfigSection):
    """The network and its initialization."""

    model: ModelName = "resnet18"
    """ResNet-18 (11.2M parameters) or ResNet-34 (21.3M; about twice the time)."""

    init_from: Path | None = None
    """Checkpoint (.pth or .safetensors) to initialize from, or "pretrained" for the bundled weights; the classifier is
    re-initialized if the classes differ."""

    sync_bn: bool = False
    """Use SyncBatchNorm (multi-GPU)."""


@dataclass(frozen=True, kw_only=True)
class OptimConfig(ConfigSection):
    """Optimizer, learning-rate schedule and loss."""

    optimizer: Literal["sgd", "muon"] = "sgd"
    """SGD with momentum, or "muon", which orthogonalizes the updates of the convolutions."""

    epochs: int = 100
    """Number of passes over the training set."""

    batch_size: int = 128
    """Global batch size. If you run out of memory, halve it together with `lr`."""

    lr: float = 0.1
    """Peak learning rate, reached at the end of warmup."""

    muon_lr: float = 0.1
    """Peak learning rate of the Muon parameter groups (relative size of an update)."""

    schedule: Literal["cosine", "linear"] = "cosine"
    """Decay of the learning rate to 0 after warmup."""

    momentum: float = 0.9
    """Momentum of SGD and Muon."""

    nesterov: bool = True
    """Use Nesterov momentum."""

    weight_decay: float = 5e-4
    """L2 penalty, as in torch.optim.SGD."""

    decay_norms: bool = True
    """Apply weight decay to batch-norm parameters and biases too."""

    warmup_epochs: float = 5
    """Linear warmup, in epochs (fractions allowed); at most a third of the run."""

    label_smoothing: float = 0.1
    """Label-smoothing epsilon (Szegedy et al. 2016)."""

    class_weights: Literal["none", "balanced"] = "none"
    """Weight of each class in the loss: 1, or "balanced": inverse to its number of train images. An alternative to
    --sampler balanced."""

    ema_decay: float = 0.0
    """EMA decay of the weights, e.g. 0.999; the EMA weights are what is evaluated and saved. 0 disables EMA."""

    seed: int = 0
    """Seed for initialization, data order and augmentation."""

    def __post_init__(self) -> None:
        super().__post_init__()
        fits = self.momentum > 0 or not self.nesterov
        check(fits, "nesterov", "--nesterov needs --momentum above 0; add --no-nesterov.")


@dataclass(frozen=True, kw_only=True)
class RunConfig(ConfigSection):
    """Where and how a run executes and what it writes. All of it may differ when a run is resumed; a change
    that affects rounding (device, precision, number of threads) is reported."""

    data_dir: Path | None = None
    """Dataset directory or archive. None: $CIFAR100_DATA_DIR, then ./data."""

    strict: bool = False
    """Fail on unreadable images instead of skipping and listing them."""

    run_dir: Path = Path("logs/cifar100")
    """Output directory. An existing run there is moved to previous/."""

    device: DeviceName = "auto"
    """"auto": CUDA, else MPS (see `USE_MPS`), else the CPU."""

    precision: PrecisionName = "auto"
    """Compute precision; weights stay fp32. "auto": bf16 if the hardware is fast at it, fp16 on old GPUs, else fp32."""

    compile: bool = False
    """Use torch.compile: minutes at the start, faster steps on an NVIDIA GPU."""

    num_workers: int = 0
    """Worker processes for --pipeline albumentations. 0: augment in the main process."""

    eval_every: int = 1
    """Evaluate every N epochs, and after the last."""

    checkpoint_every: int = 10
    """Keep a checkpoint (checkpoint_epoch_N.pth) every N epochs. 0: none."""

    save_seconds: float = 60
    """Seconds between saves of last.pth, from which --resume continues; it is also saved on Ctrl-C and at the end."""

    dist_timeout: float = 120
    """Timeout of collective operations between processes, in seconds."""

    stop_after: int = 0
    """Stop, resumably, after this epoch. 0: never."""

    report: bool = True
    """Write an HTML report (report/index.html in the run directory) when training ends."""

    tensorboard: bool = False
    """Log to TensorBoard, in tensorboard/ of the run directory (pip install 'cifar100[tensorboard]')."""

    track: Literal["none", "trackio", "wandb"] = "none"
    """Experiment tracker: "trackio", on this machine (pip install 'cifar100[trackio]'; `trackio show`), or "wandb"."""

    def __post_init__(self) -> None:
        super().__post_init__()
        message = "--run-dir is the working directory; a run needs a directory of its own."
        check(str(self.run_dir) != ".", "run_dir", message)

    def keeps_checkpoint(self, epoch: int) -> bool:
        """Whether a checkpoint is kept after this epoch, counted from 1."""
        return self.checkpoint_every > 0 and epoch % self.checkpoint_every == 0


@dataclass(frozen=True, kw_only=True)
class Config:
    """The settings of one run, by section. Field names are unique: `Config().replace(epochs=10, lr=0.2)`."""

    data: DataConfig = field(default_factory=DataConfig)
    augment: AugmentConfig = field(default_factory=AugmentConfig)
    model: ModelConfig = field(default_factory=ModelConfig)
    optim: OptimConfig = field(default_factory=OptimConfig)
    run: RunConfig = field(default_factory=RunConfig)

    def replace(self, **settings: Any) -> Config:
        """A copy with these settings changed. Raises UserError if a name is unknown or a value is out of range."""
        unknown = ", ".join(sorted(settings.keys() - self.flat().keys()))
        check(not unknown, "unknown", f"Unknown setting {unknown}; cifar100 train --help lists the settings.")
        sections = {
            name: replace(section, **{key: value for key, value in settings.items() if key in vars(section)})
            for name, section in vars(self).items()
        }
        return replace(self, **sections)

    def flat(self) -> dict[str, Any]:
        """{setting: value} over all sections, of JSON types only."""
        return {name: plain(value) for section in asdict(self).values() for name, value in section.items()}

    @classmethod
    def from_flat(cls, values: dict[str, Any]) -> Config:
        """The inverse of `flat`, also for the settings of earlier versions.

        Raises UserError if a name is unknown or a value is out of range."""
        return cls().replace(**restore_settings(values))

    def differences(self, other: Config) -> dict[str, tuple[Any, Any]]:
        """{setting: (value here, value in `other`)} of the settings that differ."""
        mine, others = self.flat(), other.flat()
        return {name: (mine[name], others[name]) for name in mine if mine[name] != others[name]}
