"""The command line: one thin verb a task. Nothing heavy loads before a verb needs it, so that help comes at once."""

from __future__ import annotations

import argparse
import io
import json
import os
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import tyro
from tyro.conf import OmitArgPrefixes, Positional
from tyro.constructors import ConstructorRegistry, PrimitiveConstructorSpec, PrimitiveTypeInfo

from cifar100 import __version__
from cifar100.config import AugmentConfig, Config
from cifar100.errors import RunFailed, UserError
from cifar100.recipes import RECIPES, recipe
from cifar100.text import printable

USAGE = """\
usage: cifar100 VERB [OPTIONS]

Train, evaluate and use a ResNet-18 on CIFAR-100.

  train      train from scratch, or go on with an interrupted run
  evaluate   accuracy of a checkpoint: top-1, top-5, superclasses, classes
  predict    name what is in images
  data       download it, check it, see what augmentation does to it
  model      the layers of the network, their shapes and parameters

  cifar100 VERB --help    the options of a verb
  cifar100 --version      the version
"""

DatasetName = Literal["cifar100", "synthetic"]
DeviceName = Literal["auto", "cpu", "cuda", "mps"]
PrecisionName = Literal["auto", "fp32", "bf16", "fp16"]


@dataclass(frozen=True, kw_only=True)
class Train:
    """Train from scratch, or go on with an interrupted run.

    The defaults shown are the recipe's: cifar100/config.py, and what the recipe does differently.
    """

    recipe: Literal["baseline", "fast"] = "baseline"
    """The settings to start from."""

    resume: bool = False
    """Go on, exactly, with the run in --run-dir, with the settings that it began with."""

    config: Config

    def run(self) -> int:
        from cifar100.train import train

        result = train(self.config, recipe=self.recipe, resume=self.resume)
        return 130 if result.stopped_by.startswith("SIG") else 0


@dataclass(frozen=True, kw_only=True)
class Evaluate:
    """Accuracy of a checkpoint: top-1, top-5, the 20 superclasses, the classes; loss and speed."""

    checkpoint: Positional[Path]
    """A .pth file that training wrote, or a state dict under torchvision's names."""

    split: Literal["test", "val", "train"] = "test"
    """Which images; "val" is what the checkpoint's training held out."""

    dataset: DatasetName = "cifar100"
    """"synthetic" is the made-up set of `train --dataset synthetic`."""

    data_dir: Path | None = None
    """Folder that holds the dataset. Not given: $CIFAR100_DATA_DIR, then ./data."""

    device: DeviceName = "auto"
    """Where to compute."""

    precision: PrecisionName = "fp32"
    """Arithmetic of the network; "auto" is what training would use."""

    per_class: bool = False
    """List all classes, not only the best and the worst."""

    samples: int = 0
    """Also show so many sample predictions."""

    json: Path | None = None
    """Also write all figures to this file."""

    def run(self) -> int:
        from cifar100.checkpoint import load_checkpoint, versions
        from cifar100.evaluate import evaluate, sample_lines, table
        from cifar100.files import replace_file

        if self.json is not None and not self.json.parent.is_dir():
            raise UserError(f"--json {printable(self.json)}: there is no folder {printable(self.json.parent)}.")
        checkpoint = load_checkpoint(self.checkpoint)
        evaluation = evaluate(
            checkpoint,
            split=self.split,
            dataset=self.dataset,
            data_dir=self.data_dir,
            device=self.device,
            precision=self.precision,
        )
        print(f"{printable(self.checkpoint)}: {checkpoint.model}, trained on {printable(checkpoint.dataset)}")
        if checkpoint.chosen_on:
            print(f"kept as {printable(checkpoint.chosen_on)}")
        print("\n" + table(evaluation, per_class=self.per_class))
        if self.samples:
            print("\n" + "\n".join(sample_lines(evaluation, checkpoint.classes, self.samples)))
        if self.json is not None:
            figures = evaluation.to_json() | {"checkpoint": str(self.checkpoint), "versions": versions()}
            replace_file(self.json, json.dumps(figures, indent=2) + "\n")
        return 0


@dataclass(frozen=True, kw_only=True)
class Predict:
    """Name what is in images: the likeliest classes, each with its probability."""

    images: Positional[tuple[Path, ...]]
    """Image files of any kind that Pillow reads, of any size."""

    checkpoint: Path = Path("logs/cifar100/best_model.pth")
    """The trained model."""

    top_k: int = 5
    """How many classes to name."""

    device: DeviceName = "auto"
    """Where to compute."""

    json: bool = False
    """Print a JSON object a line for each image instead."""

    def run(self) -> int:
        if not self.images:
            raise UserError("Which image? cifar100 predict photo.jpg")
        from cifar100.images import to_pixels
        from cifar100.inference import load_predictor

        predictor = load_predictor(self.checkpoint, device=self.device)
        if "SYNTHETIC" in predictor.trained_on:
            print("cifar100: this model was trained on made-up images; its answers mean nothing", file=sys.stderr)
        read: list[Path] = []
        failed = 0

        def pixels() -> Iterator[Any]:
            nonlocal failed
            for path in self.images:
                try:
                    image = to_pixels(path, predictor.image_size)
                except UserError as error:
                    print(f"cifar100: {error}", file=sys.stderr)
                    failed += 1
                else:
                    read.append(path)
                    yield image

        for number, predictions in enumerate(predictor.predict_stream(pixels(), self.top_k)):
            path = read[number]
            if self.json:
                print(json.dumps({"image": str(path), "predictions": [item._asdict() for item in predictions]}))
            else:
                print(printable(path))
                for name, class_id, probability in predictions:
                    bar = "#" * round(30 * probability)
                    print(f"  {probability:7.2%}  {printable(name):<20} {class_id:>3}  {bar}")
        return 1 if failed else 0


@dataclass(frozen=True, kw_only=True)
class DataGet:
    """Download CIFAR-100, from the Hugging Face hub or from its home page, and prove that it is the real one."""

    to: Path = Path("data")
    """The folder that it goes to; training looks into ./data by itself."""

    def run(self) -> int:
        from cifar100.dataset.download import fetch

        fetch(self.to)
        return 0


@dataclass(frozen=True, kw_only=True)
class DataCheck:
    """Say what a data folder holds, and whether it is the published CIFAR-100."""

    data_dir: Positional[Path | None] = None
    """The folder. Not given: $CIFAR100_DATA_DIR, then ./data."""

    def run(self) -> int:
        from cifar100.dataset import DEFAULT_FOLDER, find_folder, read

        dataset = read(find_folder(self.data_dir) or DEFAULT_FOLDER)
        print(dataset)
        for name, split in (("train", dataset.train), ("test", dataset.test)):
            print(f"  {name:<6}{len(split):>7,} images  fingerprint {split.fingerprint}")
        return 0 if dataset.is_verified else 1


@dataclass(frozen=True, kw_only=True)
class DataPreview:
    """Describe each augmentation, time the pipeline, draw originals beside what it makes of them; list the classes."""

    out: Path = Path("augmentations.png")
    """Where the picture goes."""

    dataset: DatasetName = "cifar100"
    """"synthetic" is the made-up set."""

    data_dir: Path | None = None
    """Folder that holds the dataset. Not given: $CIFAR100_DATA_DIR, then ./data."""

    batch_size: int = Config().optim.batch_size
    """Images a batch."""

    seed: int = Config().optim.seed
    """Which images, and what happens to them."""

    augment: AugmentConfig = field(default_factory=AugmentConfig)

    def run(self) -> int:
        from cifar100.utils import preview

        config = replace(Config(), augment=self.augment).replace(dataset=self.dataset, data_dir=self.data_dir)
        print(preview(config.replace(batch_size=self.batch_size, seed=self.seed), self.out))
        return 0


@dataclass(frozen=True, kw_only=True)
class DataSamples:
    """Write some test images as PNG files named by their class, to try predictions on."""

    out: Positional[Path] = Path("samples")
    """The folder that they go to; it is made."""

    count: int = 10
    """How many, spread evenly over the classes."""

    dataset: DatasetName = "cifar100"
    """"synthetic" is the made-up set."""

    data_dir: Path | None = None
    """Folder that holds the dataset. Not given: $CIFAR100_DATA_DIR, then ./data."""

    def run(self) -> int:
        from cifar100.dataset import load_dataset
        from cifar100.utils import write_samples

        for path in write_samples(load_dataset(self.dataset, self.data_dir), self.out, self.count):
            print(path)
        return 0


@dataclass(frozen=True, kw_only=True)
class Model:
    """The layers of a network, their output shapes and parameters."""

    name: Positional[Literal["resnet18", "resnet34"]] = "resnet18"
    """Which network."""

    num_classes: int = 100
    """Classes that it tells apart."""

    image_size: int = 32
    """Side of its images, in pixels."""

    def run(self) -> int:
        from cifar100.model import describe

        for flag, value in (("--num-classes", self.num_classes), ("--image-size", self.image_size)):
            if value < 1:
                raise UserError(f"{flag} is {value}; it must be 1 or more.")
        print(describe(self.name, self.num_classes, self.image_size))
        return 0


VERBS: dict[str, Any] = {
    "train": Train,
    "evaluate": Evaluate,
    "predict": Predict,
    "data get": DataGet,
    "data check": DataCheck,
    "data preview": DataPreview,
    "data samples": DataSamples,
    "model": Model,
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a verb; the exit code: 0 done, 1 failed, 2 the user's mistake, 130 interrupted."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")  # a terminal without UTF-8 still gets its text
    try:
        return _run(words)
    except UserError as error:
        print(f"cifar100: {error}", file=sys.stderr)
        return 2
    except RunFailed as error:
        print(f"cifar100: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("cifar100: interrupted", file=sys.stderr)
        return 130
    except BrokenPipeError:  # the reader, `head` say, has seen enough; leave Python nothing to flush at exit
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0


def _run(words: list[str]) -> int:
    if not words or words[0] in ("-h", "--help", "help"):
        print(USAGE, end="")
        return 0 if words else 2
    if words[0] == "--version":
        print(f"cifar100 {__version__}")
        return 0
    verb, rest = words[0], words[1:]
    if verb == "data":
        verbs = [name.split()[1] for name in VERBS if name.startswith("data ")]
        if not rest or rest[0] not in verbs:
            asked = bool(rest) and rest[0] in ("-h", "--help")
            print("usage: cifar100 data VERB [OPTIONS]\n")
            for name in verbs:
                print(f"  {name:<10} {(VERBS['data ' + name].__doc__ or '').splitlines()[0]}")
            return 0 if asked else 2
        verb, rest = f"data {rest[0]}", rest[1:]
    if verb not in VERBS:
        raise UserError(f"There is no verb {printable(verb)!r}; cifar100 --help lists them.")
    command = tyro.cli(
        VERBS[verb],
        prog=f"cifar100 {verb}",
        args=rest,
        default=_default(verb, rest),
        config=(OmitArgPrefixes,),
        registry=_paths(),
    )
    return command.run()


def _paths() -> ConstructorRegistry:
    """How tyro shows and reads a path that may be left out: as PATH, not as {None}|PATH."""
    registry = ConstructorRegistry()

    @registry.primitive_rule
    def optional_path(info: PrimitiveTypeInfo) -> PrimitiveConstructorSpec[Path | None] | None:
        if info.type != Path | None:
            return None
        return PrimitiveConstructorSpec(
            nargs=1,
            metavar="PATH",
            instance_from_str=lambda words: Path(words[0]),
            is_instance=lambda value: value is None or isinstance(value, Path),
            str_from_instance=lambda value: ["none" if value is None else str(value)],
        )

    return registry


def _default(verb: str, words: list[str]) -> object:
    """What the flags of a verb start from: the recipe that the flags name, or on --resume the run's own settings."""
    if verb != "train":
        return tyro.MISSING_NONPROP
    early = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    early.add_argument("--recipe", default="baseline")
    early.add_argument("--resume", action="store_true")
    early.add_argument("--run-dir", "--run_dir", type=Path, default=Config().run.run_dir)
    known, _ = early.parse_known_args(words)
    name = known.recipe if known.recipe in RECIPES else "baseline"
    saved = known.run_dir / "config.json"
    if known.resume and saved.is_file():
        try:
            values = json.loads(saved.read_text(encoding="utf-8"))
            return Train(config=Config.from_flat(values["settings"]), recipe=values["recipe"])
        except (OSError, ValueError, KeyError, TypeError, UserError) as error:
            raise UserError(
                f"{printable(saved)} cannot be used ({printable(error)}): mend it, or move it away and give the run's "
                "settings as flags."
            ) from None
    return Train(config=recipe(name), recipe=name)


if __name__ == "__main__":
    sys.exit(main())
