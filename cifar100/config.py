"""Every hyper-parameter, in one place. `Config()` is the baseline recipe: edit a value here and the next run uses it.

Each class below is one concern; each field is a flag of `cifar100 train` by the same name (`weight_decay` is
`--weight-decay`). A flag beats a recipe (`cifar100/recipes/`), a recipe beats this file.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import Any, Literal

from cifar100.support.settings import Section, check, plain

DatasetName = Literal["cifar100", "synthetic"]
ModelName = Literal["resnet18", "resnet34"]
DeviceName = Literal["auto", "cpu", "cuda", "mps"]
PrecisionName = Literal["auto", "fp32", "bf16", "fp16"]
OptimizerName = Literal["sgd", "muon"]
ScheduleName = Literal["cosine", "linear"]
PipelineName = Literal["batched", "albumentations"]
PolicyName = Literal["none", "trivial", "rand"]

USE_MPS = True
"""Use the Apple-silicon GPU where there is one and `device` is "auto"."""


@dataclass(frozen=True, kw_only=True)
class DataConfig(Section):
    """Which images are trained on."""

    dataset: DatasetName = "cifar100"
    """"cifar100" stands for what the data folder holds, CIFAR-100, CIFAR-10 or class folders of your own images;
    "synthetic" is a small made-up set for trying things out, and whatever is made from it says so."""

    image_size: int = 32
    """Side, in pixels, that your own images are resized and cropped to. Those of the published datasets have 32."""

    test_fraction: float = 0.2
    """Share of each class of your own images that is split off as the test images, where the folder has no test/."""

    split_seed: int = 0
    """Which ones those are. Runs of different `seed` share their test images."""

    val_fraction: float = 0.0
    """Share of the training images, the same of each class, held out to choose the best checkpoint on. 0: none, and
    the best checkpoint is chosen on the test set (and labelled so)."""

    def __post_init__(self) -> None:
        super().__post_init__()
        check(16 <= self.image_size <= 1024, f"--image-size is {self.image_size}; it must lie between 16 and 1024.")
        check(0 < self.test_fraction < 1, f"--test-fraction is {self.test_fraction}; it must be above 0 and below 1.")
        check(0 <= self.split_seed < 2**32, f"--split-seed is {self.split_seed}; it must lie in 0..{2**32 - 1}.")
        self.below_1("val_fraction")


@dataclass(frozen=True, kw_only=True)
class AugmentConfig(Section):
    """What happens to a training image before the network sees it. Test images are only normalised."""

    crop_padding: int = 4
    """Pixels of black added on every side before an image-sized window is cut out at random. 0: no crop."""

    flip_probability: float = 0.5
    """Chance that an image is mirrored left to right."""

    alternating_flip: bool = False
    """Mirror each image in every other epoch, half of the images in the even ones, rather than at random: in two epochs
    each is seen both ways (Jordan 2024, https://arxiv.org/abs/2404.00498). Of `flip_probability` only 0 then counts."""

    cutout_size: int = 16
    """Side, in pixels, of the square that cutout fills with the mean colour (DeVries & Taylor 2017). 0: no cutout."""

    cutout_probability: float = 0.5
    """Chance that an image gets such a hole."""

    policy: PolicyName = "none"
    """What else happens to an image, before the crop: one of fourteen operations on its shape and colours, of a
    random strength ("trivial": TrivialAugment, https://arxiv.org/abs/2103.10158), or some of one strength ("rand")."""

    rand_ops: int = 2
    """Operations an image with RandAugment (Cubuk et al. 2020, https://arxiv.org/abs/1909.13719)."""

    rand_magnitude: int = 9
    """Their strength, in 0..30."""

    erase_probability: float = 0.0
    """Chance that a rectangle of 2 to 33 % of an image gets the mean colour (random erasing, Zhong et al. 2020)."""

    mixup_probability: float = 0.0
    """Chance that an image is blended with another one, and its label so too (Zhang et al. 2018)."""

    mixup_alpha: float = 0.2
    """The shares are drawn from Beta(alpha, alpha): the lower, the nearer to 0 or 1."""

    cutmix_probability: float = 0.0
    """Chance that a box of an image shows another one, and its label so too (Yun et al. 2019); never with Mixup."""

    cutmix_alpha: float = 1.0
    """The box's share of the area is drawn from Beta(alpha, alpha). 1: any share is as likely."""

    train_sizes: tuple[int, ...] = ()
    """Side in pixels that the images of each epoch are scaled to before the network, the last one for all epochs after:
    small ones first take less time (Tan & Le 2021, https://arxiv.org/abs/2104.00298). Not given: their own size, which
    test images always keep."""

    mean: tuple[float, float, float] = (0.5071, 0.4867, 0.4408)
    """Mean of each colour channel over the training images, in 0..1, taken off before the network."""

    std: tuple[float, float, float] = (0.2675, 0.2565, 0.2761)
    """Standard deviation of each channel, in 0..1, divided by before the network."""

    pipeline: PipelineName = "batched"
    """What carries it out. "batched": our own transforms, a batch at a time, on the device. "albumentations": that
    library, image by image on the CPU, in --num-workers processes (pip install 'cifar100[albumentations]')."""

    def __post_init__(self) -> None:
        super().__post_init__()
        self.at_least(0, "crop_padding", "cutout_size")
        self.at_least(1, "rand_ops")
        check(0 <= self.rand_magnitude <= 30, f"--rand-magnitude is {self.rand_magnitude}; it must lie in 0..30.")
        self.probabilities("flip_probability", "cutout_probability", "mixup_probability", "cutmix_probability")
        self.probabilities("erase_probability")
        self.above_0("mixup_alpha", "cutmix_alpha")
        mixed = self.mixup_probability + self.cutmix_probability
        check(mixed <= 1, f"--mixup-probability and --cutmix-probability make {mixed:g} together; 1 is the most.")
        small = min(self.train_sizes, default=8) < 8
        check(not small, f"--train-sizes is {self.train_sizes}; each must be 8 or more.")
        ours = {"alternating-flip": self.alternating_flip, "policy": self.policy != "none"}
        ours["erase-probability"] = self.erase_probability > 0
        for name, asked in ours.items():
            apart = asked and self.pipeline != "batched"
            check(not apart, f"--{name} is of --pipeline batched; leave one of the two out.")
        check(min(self.std) > 0, f"--std is {self.std}; each channel's must be above 0.")

    @property
    def mixes(self) -> bool:
        """Whether images are mixed with one another, so that labels are shares of classes."""
        return self.mixup_probability + self.cutmix_probability > 0


@dataclass(frozen=True, kw_only=True)
class ModelConfig(Section):
    """The network."""

    model: ModelName = "resnet18"
    """ResNet-18 (11.2M parameters), or the deeper ResNet-34 (21.3M): more accurate, about twice the time."""

    identity_init: bool = False
    """Start each 3x3 convolution as the identity on as many of its outputs as it has inputs (dirac initialisation); the
    other outputs as ever."""

    zero_init_residual: bool = False
    """Start the last batch norm of each block at 0, so that each block starts as its shortcut (Goyal et al. 2017,
    https://arxiv.org/abs/1706.02677)."""

    init_from: Path | None = None
    """File of weights to start from, a .pth or a .safetensors, or "pretrained" for those that come with cifar100: all
    that fits is taken over; where the classes differ, the last layer starts afresh. Not given: from scratch."""

    freeze_stem: bool = False
    """Leave the first convolution and its batch norm as they start. For --init-from."""

    sync_bn: bool = False
    """With several processes on GPUs: batch norm over the images of all, and not each process's own."""


@dataclass(frozen=True, kw_only=True)
class OptimConfig(Section):
    """How the weights are found: SGD with momentum, linear warmup, then a cosine to zero."""

    optimizer: OptimizerName = "sgd"
    """SGD with momentum, or "muon", which orthogonalizes the updates of the convolutions."""

    epochs: int = 100
    """Passes over the training images."""

    batch_size: int = 128
    """Images a step. Out of memory: try 64 or 32, and lower `lr` by the same factor."""

    lr: float = 0.1
    """Learning rate at the end of warmup, its highest."""

    muon_lr: float = 0.1
    """The same for the weights that Muon orthogonalises: the share of its length by which a row may turn in a step."""

    norm_bias_lr_factor: float = 1.0
    """The learning rate of batch-norm biases over `lr`."""

    head_lr_factor: float = 1.0
    """The learning rate of the last layer over `lr`."""

    schedule: ScheduleName = "cosine"
    """How the learning rate falls to 0 after warmup: by half a cosine, or in a straight line."""

    momentum: float = 0.9
    """Momentum of SGD and of Muon."""

    nesterov: bool = True
    """Nesterov's form of momentum."""

    weight_decay: float = 5e-4
    """L2 penalty on the weights, as SGD's `weight_decay`."""

    decay_norms: bool = True
    """Whether weight decay also pulls on batch-norm scales and on biases."""

    warmup_epochs: float = 5
    """Epochs, fractions allowed, over which the learning rate rises linearly to `lr`."""

    label_smoothing: float = 0.1
    """Share of the target spread evenly over all classes (Szegedy et al. 2016)."""

    ema_decay: float = 0.0
    """What the moving average of the weights keeps of itself in a step, such as 0.999; it is then the average that is
    evaluated and saved for use. 0: no average."""

    distill: float = 0.0
    """Share of the loss that is the distance to what the averaged weights say: self-distillation. For --ema-decay."""

    distill_temperature: float = 1.0
    """What both sides' logits are divided by for that."""

    sam_rho: float = 0.0
    """Distance that sharpness-aware minimisation climbs for its second gradient, such as 0.1; doubles the time of a
    step. 0: none (Foret et al. 2021, https://arxiv.org/abs/2010.01412)."""

    sam_every: int = 1
    """Steps from one with such a second gradient to the next."""

    sam_friendly: float = 0.0
    """What the mean gradient that is left out of the climb keeps of itself in a step, such as 0.95 (Li et al. 2024,
    https://arxiv.org/abs/2403.12350). 0: nothing is left out."""

    seed: int = 0
    """Starting weights, order and augmentation all follow from it: the same seed, the same run."""

    def __post_init__(self) -> None:
        super().__post_init__()
        self.at_least(1, "epochs", "batch_size")
        self.above_0("lr", "muon_lr", "norm_bias_lr_factor", "head_lr_factor")
        self.at_least(0, "weight_decay", "warmup_epochs")
        self.below_1("momentum", "label_smoothing", "ema_decay", "sam_friendly")
        self.probabilities("distill")
        self.above_0("distill_temperature")
        self.at_least(0, "sam_rho")
        self.at_least(1, "sam_every")
        check(self.ema_decay > 0 or self.distill == 0, "--distill learns from the average; give --ema-decay too.")
        check(self.momentum > 0 or not self.nesterov, "--nesterov needs --momentum above 0; add --no-nesterov.")
        check(0 <= self.seed < 2**32, f"--seed is {self.seed}; it must lie between 0 and {2**32 - 1}.")


@dataclass(frozen=True, kw_only=True)
class RunConfig(Section):
    """Where and how a run happens, and what it keeps: all of it may differ when a run is resumed. (Another device,
    precision or number of threads rounds differently; a run that goes on there says so.)"""

    data_dir: Path | None = None
    """Folder that holds the dataset, or its .tar.gz archive. Not given: $CIFAR100_DATA_DIR, then ./data."""

    strict: bool = False
    """Refuse a folder of your own images that holds unreadable files, instead of leaving these out and listing them."""

    run_dir: Path = Path("logs/cifar100")
    """Folder that the run's log, metrics and checkpoints go to. A run that is there already is moved to
    its previous/ first."""

    device: DeviceName = "auto"
    """"auto": CUDA, else Apple's MPS (see `USE_MPS`), else the CPU."""

    precision: PrecisionName = "auto"
    """Arithmetic of the network; weights are always kept in fp32. "auto": bf16 where the chip is fast at it, fp16
    on older CUDA GPUs, else fp32."""

    compile: bool = False
    """Compile the model with torch.compile: minutes at the start, faster steps on a GPU."""

    num_workers: int = 0
    """Processes that --pipeline albumentations augments in, beside this one; 0: in this one. --pipeline batched works
    on the device, and needs none."""

    eval_every: int = 1
    """Epochs between evaluations. The last epoch is always evaluated."""

    checkpoint_every: int = 10
    """Epochs between the checkpoints that are kept, checkpoint_epoch_N.pth. 0: none."""

    save_seconds: float = 60
    """Seconds between the saves of last.pth, which --resume goes on from; it is also saved on Ctrl-C and at the end."""

    peer_seconds: float = 120
    """Seconds that the processes of one training wait for one another before they take one for lost."""

    stop_after: int = 0
    """Stop, saved, after this epoch of the schedule, for --resume to go on another day. 0: run to the end."""

    report: bool = True
    """When training has ended, write a page about what came out, report/index.html in the run's folder, as `cifar100
    report` does. The fast recipe leaves it out."""

    tensorboard: bool = False
    """Also write the metrics, the settings, sample predictions and the confusion matrix for TensorBoard, to
    tensorboard/ in the run's folder (pip install 'cifar100[tensorboard]')."""

    def __post_init__(self) -> None:
        super().__post_init__()
        check(str(self.run_dir) != ".", "--run-dir is the working directory; a run wants a folder of its own.")
        self.at_least(0, "num_workers", "checkpoint_every", "stop_after", "save_seconds")
        self.at_least(1, "eval_every")
        self.above_0("peer_seconds")


@dataclass(frozen=True, kw_only=True)
class Config:
    """One run's settings, by concern; `Config()` is the baseline recipe.

    Field names are unique across the concerns, so a setting can also be named without its concern:
    `Config().replace(epochs=10, lr=0.2)`.
    """

    data: DataConfig = field(default_factory=DataConfig)
    augment: AugmentConfig = field(default_factory=AugmentConfig)
    model: ModelConfig = field(default_factory=ModelConfig)
    optim: OptimConfig = field(default_factory=OptimConfig)
    run: RunConfig = field(default_factory=RunConfig)

    def replace(self, **settings: Any) -> Config:
        """A copy with these settings changed. Raises UserError where a name is unknown or a value out of range."""
        sections = {section.name: getattr(self, section.name) for section in fields(self)}
        section_of = {setting.name: name for name, section in sections.items() for setting in fields(section)}
        unknown = sorted(set(settings) - set(section_of))
        check(not unknown, f"Unknown setting {', '.join(unknown)}; cifar100 train --help lists the settings.")
        changes: dict[str, dict[str, Any]] = {}
        for name, value in settings.items():
            changes.setdefault(section_of[name], {})[name] = value
        return replace(self, **{name: replace(sections[name], **change) for name, change in changes.items()})

    def flat(self) -> dict[str, Any]:
        """{setting: value} over all concerns, of JSON types only."""
        return {name: plain(value) for section in asdict(self).values() for name, value in section.items()}

    @classmethod
    def from_flat(cls, values: dict[str, Any]) -> Config:
        """The inverse of `flat`. Raises UserError where a name is unknown or a value out of range."""
        restored = dict(values)
        for name in ("data_dir", "run_dir", "init_from"):
            if isinstance(restored.get(name), str):
                restored[name] = Path(restored[name])
        for name in ("mean", "std", "train_sizes"):
            if isinstance(restored.get(name), list):
                restored[name] = tuple(restored[name])
        return cls().replace(**restored)

    def differences(self, other: Config) -> dict[str, tuple[Any, Any]]:
        """{setting: (value here, value in `other`)} of the settings that differ."""
        mine, others = self.flat(), other.flat()
        return {name: (mine[name], others[name]) for name in mine if mine[name] != others[name]}
