"""augmentation/albumentations_pipeline.py compared with the batched pipeline; worker processes; training runs."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import closing, suppress
from dataclasses import replace
from multiprocessing import active_children
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import NARROW_CLI, assert_identical, assert_one_sentence, at_step
from PIL import Image
from scipy.stats import chi2_contingency, chisquare
from test_augment import same_batches
from torch import Tensor

from cifar100.augmentation.albumentations_pipeline import Pipeline, load_albumentations
from cifar100.augmentation.batched import AugmentParams, augment, sample_epoch_params
from cifar100.augmentation.loader import TrainLoader
from cifar100.checkpoints.checkpoint import load_checkpoint
from cifar100.config import AugmentConfig, Config
from cifar100.dataset import Split
from cifar100.report.augmentation import preview
from cifar100.support.errors import RunFailed, UserError
from cifar100.train import train

CPU = torch.device("cpu")
SIZE = 32
CONFIG = AugmentConfig(pipeline="albumentations")


def some_images(count: int, size: int = SIZE) -> np.ndarray:
    return np.random.default_rng(1).integers(0, 256, (count, size, size, 3), dtype=np.uint8)


# Equal transforms


def with_draws(pipeline: Pipeline, image: np.ndarray, draws: AugmentParams, place: int) -> np.ndarray:
    """Apply the pipeline's transforms with the parameters `draws` in place of sampled ones."""
    names = [type(transform).__name__ for transform in pipeline.transforms]
    transforms = dict(zip(names, pipeline.transforms, strict=True))
    top, left, size = int(draws.crop_top[place]), int(draws.crop_left[place]), len(image)
    window = {"crop_coords": (left, top, left + size, top + size), "pad_params": None}
    square_top, square_left, side = (
        int(draws.cutout_top[place]),
        int(draws.cutout_left[place]),
        pipeline.config.cutout_size,
    )
    square = {"holes": np.array([[square_left, square_top, square_left + side, square_top + side]]), "seed": 0}
    if "RandomCrop" in transforms:
        transforms["RandomCrop"].get_params_dependent_on_data = lambda params, data: window
    transforms["HorizontalFlip"].should_apply = lambda force_apply=False: bool(draws.flipped[place])
    if "CoarseDropout" in transforms:
        transforms["CoarseDropout"].get_params_dependent_on_data = lambda params, data: square
        transforms["CoarseDropout"].should_apply = lambda force_apply=False: bool(draws.cutout_mask[place])
    return pipeline.transforms(image=image)["image"]


@pytest.mark.parametrize(
    ("config", "size"),
    [
        (CONFIG, 32),
        (replace(CONFIG, crop_padding=0, cutout_size=0), 32),
        (replace(CONFIG, crop_padding=9, cutout_size=20, cutout_probability=1.0), 20),
        (replace(CONFIG, cutout_size=1, mean=(0.1, 0.5, 0.9), std=(0.5, 0.05, 1.0)), 32),
    ],
    ids=["baseline", "flip only", "large", "small square"],
)
def test_equal_parameters_give_the_same_images_as_the_batched_pipeline(config: AugmentConfig, size: int) -> None:
    count = 200
    images, draws = some_images(count, size), sample_epoch_params(config, seed=3, epoch=2, count=count, size=size)
    expected = augment(torch.from_numpy(images), draws, config).permute(0, 2, 3, 1).numpy()
    pipeline = Pipeline(config, seed=0, size=size)
    for place in range(count):
        found = with_draws(pipeline, images[place], draws, place)
        assert found.dtype == np.float32
        np.testing.assert_allclose(found, expected[place], rtol=0, atol=1e-5)


# Equal distributions


def coded_image() -> np.ndarray:
    """An image whose red and green channels encode the row and column from 1, so that only padding is black."""
    image = np.full((SIZE, SIZE, 3), 200, dtype=np.uint8)
    image[:, :, 0] = np.arange(1, SIZE + 1)[:, None]
    image[:, :, 1] = np.arange(1, SIZE + 1)
    return image


def read_draws(images: Tensor, config: AugmentConfig) -> dict[str, np.ndarray]:
    """Recover the augmentation parameters of many augmented versions of the coded image from their pixels."""
    normalized = images.permute(0, 2, 3, 1).numpy()
    square = (normalized == 0).all(axis=3)
    pixels = ((normalized * np.array(config.std) + np.array(config.mean)) * 255).round().astype(int)
    seen = (pixels[..., 2] == 200) & ~square  # neither padding nor square
    count = len(pixels)

    def first(mask: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        return np.divmod(mask.reshape(count, -1).argmax(axis=1), SIZE)

    row, column = first(seen)
    red, green = (pixels[np.arange(count), row, column, channel] for channel in (0, 1))
    to_the_right = np.diff(pixels[..., 1], axis=2) * (seen[:, :, 1:] & seen[:, :, :-1])
    flipped = to_the_right.sum(axis=(1, 2)) < 0
    cut = square.any(axis=(1, 2))
    assert (square.sum(axis=(1, 2))[cut] == config.cutout_size**2).all(), (
        "the cutout square must lie inside the image and have the mean color"
    )
    square_row, square_column = first(square)
    return {
        "crop_top": red - 1 - row + config.crop_padding,
        "crop_left": green - 1 - np.where(flipped, SIZE - 1 - column, column) + config.crop_padding,
        "flipped": flipped.astype(int),
        "cutout_mask": cut.astype(int),
        "cutout_top": np.where(cut, square_row, -1),
        "cutout_left": np.where(cut, square_column, -1),
    }


def batched(config: AugmentConfig, images: np.ndarray) -> Tensor:
    draws = sample_epoch_params(config, seed=0, epoch=0, count=len(images), size=SIZE)
    return augment(torch.from_numpy(images), draws, config)


def albumentations(config: AugmentConfig, images: np.ndarray) -> Tensor:
    return Pipeline(config, seed=0, size=SIZE)[0, list(range(len(images))), images]


MIN_P_VALUE = 1e-3
"""The seeds are fixed, so the tests are deterministic."""


@pytest.fixture(scope="module", params=[batched, albumentations], ids=["batched", "albumentations"])
def sampled(request: pytest.FixtureRequest) -> dict[str, np.ndarray]:
    images = np.broadcast_to(coded_image(), (8_000, SIZE, SIZE, 3)).copy()
    return read_draws(request.param(CONFIG, images), CONFIG)


def test_crop_offsets_and_cutout_positions_are_uniform(sampled: dict[str, np.ndarray]) -> None:
    for name, values in (("crop_top", 9), ("crop_left", 9), ("cutout_top", 17), ("cutout_left", 17)):
        found = sampled[name][sampled["cutout_mask"] == 1] if name.startswith("cutout_") else sampled[name]
        counts = np.bincount(found, minlength=values)
        assert len(counts) == values, name
        assert chisquare(counts).pvalue > MIN_P_VALUE, name


def test_flip_and_cutout_have_probability_one_half(sampled: dict[str, np.ndarray]) -> None:
    for name in ("flipped", "cutout_mask"):
        assert chisquare(np.bincount(sampled[name])).pvalue > MIN_P_VALUE, name


def test_random_parameters_are_independent(sampled: dict[str, np.ndarray]) -> None:
    cut = sampled["cutout_mask"] == 1
    names = list(sampled)
    for i, one in enumerate(names):
        for other in names[i + 1 :]:
            if one == "cutout_mask" and other.startswith("cutout_"):
                continue
            rows = cut if other.startswith("cutout_") else slice(None)
            table = np.zeros((17, 17))
            np.add.at(table, (sampled[one][rows], sampled[other][rows]), 1)
            table = table[table.any(axis=1)][:, table.any(axis=0)]
            result: Any = chi2_contingency(table, correction=False)  # scipy's stubs are incomplete
            assert result.pvalue > MIN_P_VALUE, f"{one} and {other}"


# Reseeding


def test_an_image_depends_only_on_seed_epoch_and_row() -> None:
    images = some_images(3)
    pipeline = Pipeline(CONFIG, seed=5, size=SIZE)
    first = pipeline[7, [10, 11, 12], images]
    np.random.default_rng().random()
    again = Pipeline(CONFIG, seed=5, size=SIZE)[7, [12, 11, 10], images[::-1]]
    assert torch.equal(first, again.flip(0))


@pytest.mark.parametrize("other", [(6, 7, 10), (5, 8, 10), (5, 7, 11), (7, 5, 10)])
def test_another_seed_epoch_or_row_changes_the_parameters(other: tuple[int, int, int]) -> None:
    images = np.broadcast_to(some_images(1), (8, SIZE, SIZE, 3))

    def result(seed: int, epoch: int, row: int) -> Tensor:
        return Pipeline(CONFIG, seed=seed, size=SIZE)[epoch, list(range(row, row + 100, 13)), images]

    before, after = result(5, 7, 10), result(*other)
    assert not any(torch.equal(a, b) for a, b in zip(before, after, strict=True))


# Loading


def numbered_split(count: int = 23) -> Split:
    """Noise images, so that no two augmented images are equal; the label is the row index."""
    return Split(some_images(count), np.arange(count), "")


def loader(num_workers: int = 0, *, config: AugmentConfig = CONFIG, count: int = 23) -> TrainLoader:
    return TrainLoader(numbered_split(count), config, batch_size=5, seed=0, device=CPU, num_workers=num_workers)


def test_images_come_in_the_order_of_the_batched_pipeline() -> None:
    theirs, ours = loader(), loader(config=replace(CONFIG, pipeline="batched"))
    for (images, labels), (_, expected) in zip(theirs.epoch(3), ours.epoch(3), strict=True):
        assert torch.equal(labels, expected)
        assert images.is_contiguous(memory_format=torch.channels_last)
        pipeline = Pipeline(CONFIG, 0, SIZE)
        assert torch.equal(images, pipeline[3, labels.tolist(), numbered_split().images[labels.numpy()]])


@pytest.mark.slow
@pytest.mark.parametrize("num_workers", [1, 2])
def test_batches_do_not_depend_on_the_number_of_workers_or_the_first_step(num_workers: int) -> None:
    here = loader()
    generator = torch.get_rng_state()
    with closing(loader(num_workers)) as workers:
        next(workers.epoch(0))  # an abandoned epoch: its prefetched batches are discarded
        for epoch, first_step in ((2, 0), (1, 3), (2, 4)):
            whole = list(here.epoch(epoch))
            assert len(whole) == 5
            assert same_batches(list(workers.epoch(epoch, first_step)), whole[first_step:])
        assert len(active_children()) == num_workers
    assert not active_children()
    assert torch.equal(generator, torch.get_rng_state()), "the global random state was changed"


# Training


@pytest.fixture
def config(tiny_data: Path, tmp_path: Path, narrow: None) -> Config:
    """A run of 2 epochs of 4 steps with a small network."""
    settings = {
        "epochs": 2,
        "batch_size": 64,
        "warmup_epochs": 1,
        "lr": 0.02,
        "pipeline": "albumentations",
        "report": False,
    }
    return Config().replace(**settings, data_dir=tiny_data, run_dir=tmp_path / "run")


def weights(folder: Path) -> dict[str, Tensor]:
    return load_checkpoint(folder / "last.pth").weights


@pytest.mark.slow
def test_a_stopped_run_resumes_exactly_with_another_number_of_workers(
    config: Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    whole = train(config.replace(run_dir=tmp_path / "whole")).folder
    other = train(config.replace(run_dir=tmp_path / "other", pipeline="batched")).folder
    with monkeypatch.context() as patch:
        at_step(patch, 5, lambda: os.kill(os.getpid(), signal.SIGTERM))
        assert train(config.replace(num_workers=1)).stopped_by == signal.SIGTERM
    assert not active_children()
    with pytest.raises(UserError, match="--pipeline") as raised:
        train(config.replace(pipeline="batched"), resume=True)
    assert raised.value.code == "resume.settings"
    resumed = train(config, resume=True).folder
    assert_identical(weights(whole), weights(resumed))
    assert not torch.equal(weights(whole)["fc.weight"], weights(other)["fc.weight"]), "the pipelines must differ"
    assert "no effect" not in capsys.readouterr().out


@pytest.mark.slow
def test_a_killed_worker_ends_the_run_with_one_message(config: Config, monkeypatch: pytest.MonkeyPatch) -> None:
    def kill_a_worker() -> None:
        active_children()[0].kill()
        time.sleep(1)

    at_step(monkeypatch, 2, kill_a_worker)
    with pytest.raises(RunFailed) as error:
        train(config.replace(num_workers=2))
    assert_one_sentence(str(error.value), "--num-workers", "killed", "--resume")
    assert not active_children()
    (log,) = config.run.run_dir.glob("training_log_*.txt")
    assert str(error.value) in log.read_text()


def test_an_error_in_a_worker_is_reraised_and_ends_all_workers() -> None:
    with closing(loader(1)) as workers:
        assert workers.workers is not None
        with pytest.raises(ValueError, match="shorter"):
            list(workers.workers.batches([(0, [1, 2], some_images(1))]))
    assert not active_children()


class Command:
    """`cifar100 train` with workers, in a new session, as when started from a terminal."""

    def __init__(self, tiny_data: Path, folder: Path, *words: str) -> None:
        settings = [
            "--epochs=6",
            "--batch-size=16",
            "--lr=0.02",
            "--warmup-epochs=1",
            "--save-seconds=0",
            "--no-report",
        ]
        place = ["--data-dir", str(tiny_data), "--run-dir", str(folder), "--pipeline", "albumentations"]
        self.process = subprocess.Popen(
            [sys.executable, "-W", "ignore", NARROW_CLI, "train", *settings, *place, *words],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )

    def members(self) -> list[int]:
        """The process IDs of the session that are alive, including the main process."""
        found = []
        for status in Path("/proc").glob("[0-9]*/stat"):
            with suppress(OSError):
                state, _parent, _group, session = status.read_text().rsplit(")", 1)[1].split()[:4]
                if int(session) == self.process.pid and state != "Z":
                    found.append(int(status.parent.name))
        return found

    def wait_until(self, happened: Callable[[], bool]) -> None:
        end = time.monotonic() + 120
        while not happened():
            assert self.process.returncode is not None or self.process.poll() is None, self.process.communicate()[1]
            assert time.monotonic() < end
            time.sleep(0.01)


@pytest.mark.usefixtures("narrow", "default_sighup")
@pytest.mark.slow
@pytest.mark.parametrize(
    ("when", "number"),
    [
        ("while workers start", signal.SIGINT),
        ("while workers start", signal.SIGTERM),
        ("in mid-run", signal.SIGINT),
        ("in mid-run", signal.SIGTERM),
        ("in mid-run", signal.SIGHUP),
    ],
)
def test_a_signal_to_the_process_group_stops_the_run_but_not_its_workers(
    tiny_data: Path, tmp_path: Path, when: str, number: int
) -> None:
    run = Command(tiny_data, tmp_path / "run", "--num-workers", "2")
    if when == "in mid-run":
        run.wait_until((tmp_path / "run" / "last.pth").exists)
    else:
        run.wait_until(lambda: len(run.members()) >= 4)  # main process, Python's resource tracker and two workers
        time.sleep(0.1)
    os.killpg(run.process.pid, number)
    _, errors = run.process.communicate(timeout=600)
    assert run.process.returncode == 130, errors
    assert "Traceback" not in errors
    run.wait_until(lambda: not run.members())  # Python's resource tracker exits shortly after the run
    assert load_checkpoint(tmp_path / "run" / "last.pth").loop["epoch"] < 6


# The library


def test_loading_albumentations_makes_no_request_and_starts_no_threads() -> None:
    load_albumentations()
    import albumentations.check_version
    import cv2

    assert albumentations.check_version.opener is None
    assert cv2.getNumThreads() == 1


@pytest.mark.parametrize(
    ("found", "reason"),
    [(None, "No module named|import of albumentations halted"), ("1.4.24", "found version 1.4.24")],
)
def test_a_missing_or_unsupported_release_is_an_error_before_anything_is_written(
    found: str | None, reason: str, config: Config, monkeypatch: pytest.MonkeyPatch
) -> None:
    library = load_albumentations()
    if found is None:
        monkeypatch.setitem(sys.modules, "albumentations", None)
    else:
        monkeypatch.setattr(library, "__version__", found)
    with pytest.raises(UserError, match=reason) as error:
        train(config)
    assert_one_sentence(str(error.value), "--pipeline albumentations", "pip install 'cifar100[albumentations]'")
    assert not config.run.run_dir.exists()
    train(config.replace(pipeline="batched", stop_after=1))


def test_the_preview_shows_both_pipelines_or_how_to_install_albumentations(
    tiny_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("cifar100.report.augmentation.images_per_second", lambda _loader: 1234)
    config = Config().replace(data_dir=tiny_data, crop_padding=3)
    both = preview(config, tmp_path / "both.png")
    assert "Pad                     padding=3" in both
    assert "CoarseDropout" in both
    assert "albumentations gives 1,234 in this process" in both
    monkeypatch.setitem(sys.modules, "albumentations", None)
    one = preview(config, tmp_path / "one.png")
    assert "pip install 'cifar100[albumentations]'" in one
    assert "CoarseDropout" not in one
    assert Image.open(tmp_path / "both.png").width > 1.5 * Image.open(tmp_path / "one.png").width
