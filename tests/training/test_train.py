"""Training runs: the files they write, how they stop, and that resuming is bit-identical."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import threading
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import NARROW_CLI, assert_identical, at_step
from torch import Tensor

from cifar100.checkpoints.checkpoint import Checkpoint, load_checkpoint
from cifar100.config import Config
from cifar100.dataset import synthetic
from cifar100.support.errors import RunFailed, UserError
from cifar100.support.old_settings import REMOVED
from cifar100.support.provenance import Selection
from cifar100.train import train
from cifar100.training.logger import COLUMNS
from cifar100.training.run import Run
from cifar100.training.run_dir import RunDir
from cifar100.training.step import TrainStep

SHORT = {"epochs": 2, "batch_size": 64, "warmup_epochs": 1, "lr": 0.02, "train_sizes": (16,), "report": False}


@pytest.fixture
def config(tiny_data: Path, tmp_path: Path, narrow: None) -> Config:
    """A run of 2 epochs of 4 steps at 16 px, of a network with under 1 % of the FLOPs of resnet18."""
    return Config().replace(**SHORT, data_dir=tiny_data, run_dir=tmp_path / "run")


evaluate = Run.evaluate


def weights(folder: Path) -> dict[str, Tensor]:
    return load_checkpoint(folder / "last.pth").weights


def figures(folder: Path) -> list[dict[str, object]]:
    """The rows of metrics.jsonl without durations and rates."""
    rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return [{name: row[name] for name in COLUMNS if "second" not in name} for row in rows]


def interrupt_evaluations(monkeypatch: pytest.MonkeyPatch, signal_number: int) -> None:
    """Send this process a signal as each evaluation begins."""
    evaluate = Run.evaluate

    def interrupted(self: Run, *arguments: Any) -> Any:
        os.kill(os.getpid(), signal_number)
        return evaluate(self, *arguments)

    monkeypatch.setattr(Run, "evaluate", interrupted)


def test_a_last_batch_of_one_image_of_8_pixels(config: Config) -> None:
    result = train(config.replace(epochs=1, batch_size=199, train_sizes=(8,), warmup_epochs=0))
    assert [row["steps"] for row in result.history] == [1]


def test_a_run_writes_its_documented_files(config: Config) -> None:
    result = train(config.replace(checkpoint_every=2))
    folder = result.folder
    names = {path.name for path in folder.iterdir() if not path.name.startswith((".", "training_log_"))}
    assert names == {
        "best_model.pth",
        "checkpoint_epoch_2.pth",
        "config.json",
        "curves.png",
        "evaluation.json",
        "last.pth",
        "metrics.csv",
        "metrics.jsonl",
    }
    assert [row["epoch"] for row in result.history] == [1, 2]
    assert (folder / "metrics.csv").read_text().splitlines()[0] == ",".join(COLUMNS)
    assert len((folder / "metrics.csv").read_text().splitlines()) == 3
    assert load_checkpoint(folder / "checkpoint_epoch_2.pth").selection == Selection(rule="periodic")
    assert load_checkpoint(folder / "last.pth").selection == Selection(rule="last")
    best = load_checkpoint(folder / "best_model.pth")
    assert best.selection == Selection(rule="best", split="test")
    assert best.metrics["top1"] == max(row["top1"] for row in result.history)
    assert json.loads((folder / "config.json").read_text())["settings"]["epochs"] == 2
    assert json.loads((folder / "evaluation.json").read_text())["images"] == 100


def test_train_accepts_a_dataset_and_omits_the_final_evaluation(config: Config) -> None:
    dataset = synthetic.make()
    split = dataset.train.take(np.arange(0, len(dataset.train), 8))
    config = config.replace(data_dir=Path("nowhere"))
    result = train(config, dataset=replace(dataset, train=split), finalize=False)
    num_steps = -(-len(split) // config.optim.batch_size)
    assert [row["steps"] for row in result.history] == [num_steps, 2 * num_steps]
    assert not (result.folder / "evaluation.json").exists()


def test_only_equal_seeds_give_bit_identical_runs(config: Config, tmp_path: Path) -> None:
    runs = [config.replace(run_dir=tmp_path / name, seed=seed) for name, seed in (("a", 0), ("b", 0), ("c", 1))]
    a, b, c = (weights(train(run).folder) for run in runs)
    assert_identical(a, b)
    assert not torch.equal(a["fc.weight"], c["fc.weight"])


EVERYTHING = {
    "mixup_probability": 0.3,
    "cutmix_probability": 0.4,
    "ema_decay": 0.9,
}


@pytest.mark.parametrize(
    "settings",
    [{"precision": "fp32"}, {"precision": "bf16"}, EVERYTHING],
    ids=["fp32", "bf16", "all"],
)
def test_a_run_stopped_in_mid_epoch_resumes_exactly(
    config: Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, settings: dict[str, Any]
) -> None:
    config = config.replace(**settings)
    whole = train(config.replace(run_dir=tmp_path / "whole")).folder
    with monkeypatch.context() as patch:
        at_step(patch, 5, lambda: os.kill(os.getpid(), signal.SIGTERM))
        stopped = train(config)
    assert stopped.stopped_by == signal.SIGTERM
    last = load_checkpoint(stopped.folder / "last.pth")
    assert (last.loop["epoch"], last.loop["step"], last.selection) == (1, 2, Selection(rule="step"))
    resumed = train(config, resume=True)
    assert resumed.stopped_by is None
    assert_identical(weights(whole), weights(resumed.folder))
    assert figures(whole) == figures(resumed.folder)


def test_stop_after_ends_a_long_schedule_early_and_can_be_resumed(config: Config, tmp_path: Path) -> None:
    whole = train(config.replace(run_dir=tmp_path / "whole")).folder
    part = train(config.replace(stop_after=1))
    assert part.stopped_by == "stop_after"
    assert len(part.history) == 1
    assert_identical(weights(whole), weights(train(config, resume=True).folder))


@pytest.mark.usefixtures("narrow")
@pytest.mark.slow
def test_a_run_killed_at_random_moments_resumes_exactly(tiny_data: Path, tmp_path: Path) -> None:
    """SIGKILL leaves no time to save: the run resumes from the latest checkpoint, also in mid-epoch."""
    rng = random.Random(os.environ.get("CIFAR100_TEST_SEED", "7"))
    flags = ["--epochs=12", "--batch-size=16", "--lr=0.02", "--warmup-epochs=1", "--save-seconds=0", "--no-report"]
    whole = tmp_path / "whole"
    command = [sys.executable, NARROW_CLI, "train", "--data-dir", str(tiny_data), *flags]
    subprocess.run([*command, "--run-dir", str(whole)], check=True, capture_output=True, timeout=600)

    killed, folder = 0, tmp_path / "killed"
    for attempt in range(30):
        resume = ["--resume"] if (folder / "last.pth").exists() else []
        process = subprocess.Popen(
            [*command, "--run-dir", str(folder), *resume], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE
        )
        if killed < 4 and attempt < 25:
            seen = (folder / "last.pth").stat().st_mtime_ns if resume else 0
            while process.poll() is None:  # wait for a new checkpoint, then kill at a random moment
                time.sleep(0.02)
                if (folder / "last.pth").exists() and (folder / "last.pth").stat().st_mtime_ns != seen:
                    break
            time.sleep(rng.uniform(0, 0.5))
            process.kill()
        _, errors = process.communicate(timeout=600)
        killed += process.returncode == -signal.SIGKILL
        if process.returncode != -signal.SIGKILL:
            assert process.returncode == 0, errors.decode()
            break
    assert killed >= 3
    assert_identical(weights(whole), weights(folder))
    assert figures(whole) == figures(folder)


def test_resume_falls_back_from_a_damaged_checkpoint(
    config: Config, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = config.replace(checkpoint_every=1)
    whole = train(config.replace(run_dir=tmp_path / "whole")).folder
    part = train(config.replace(stop_after=1)).folder
    content = (part / "last.pth").read_bytes()
    (part / "last.pth").write_bytes(content[: len(content) // 2])
    resumed = train(config, resume=True)
    output = capsys.readouterr().out
    assert "Skipped: " in output
    assert "last.pth is damaged" in output
    assert_identical(weights(whole), weights(resumed.folder))


def test_a_run_of_an_earlier_version_is_resumed_exactly(config: Config, tmp_path: Path) -> None:
    """Its checkpoint and config.json contain settings that have since been removed, at their defaults."""
    whole = train(config.replace(run_dir=tmp_path / "whole")).folder
    last = train(config.replace(stop_after=1)).folder / "last.pth"
    saved = load_checkpoint(last)
    saved.config = {name: value for name, value in saved.config.items() if name != "dist_timeout"}
    saved.config |= REMOVED | {"peer_seconds": 120.0}
    saved.save(last)
    assert_identical(weights(whole), weights(train(config, resume=True).folder))
    saved.config["sam_rho"] = 0.1
    saved.save(last)
    with pytest.raises(UserError, match=r"sam_rho is 0\.1") as raised:
        train(config, resume=True)
    assert raised.value.code == "config.removed"


def test_resume_refuses_changed_settings_by_name(config: Config) -> None:
    train(config.replace(stop_after=1))
    with pytest.raises(UserError, match=r"--lr was 0\.02 .* 0\.3; --label-smoothing was 0\.1 .* 0\.2") as raised:
        train(config.replace(lr=0.3, label_smoothing=0.2), resume=True)
    assert raised.value.code == "resume.settings"
    train(config.replace(num_workers=3, stop_after=0), resume=True)  # `RunConfig` may change
    with pytest.raises(UserError, match=r"--epochs was 2 and is now 1") as raised:  # fewer than are done
        train(config.replace(epochs=1), resume=True)
    assert raised.value.code == "resume.settings"
    with pytest.raises(UserError, match=r"--init-from .*last\.pth"):
        train(config.replace(epochs=4), resume=True)


def test_images_that_do_not_fit_into_memory_are_explained(config: Config, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object, **__: object) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr("cifar100.augmentation.loader.TrainLoader.__init__", fail)
    with pytest.raises(RunFailed, match="200 train images need") as raised:
        train(config)
    assert raised.value.code == "train.memory"


def test_a_second_run_archives_the_first(config: Config, capsys: pytest.CaptureFixture[str]) -> None:
    first = train(config.replace(stop_after=1))
    kept = (first.folder / "last.pth").read_bytes()
    (first.folder / "corruptions.json").write_text("of the first run")
    train(config.replace(seed=1, stop_after=1))
    (moved,) = (config.run.run_dir / "previous").iterdir()
    assert (moved / "corruptions.json").read_text() == "of the first run"
    assert str(moved) in capsys.readouterr().out
    assert (moved / "last.pth").read_bytes() == kept
    assert list(moved.glob("training_log_*.txt"))
    assert load_checkpoint(config.run.run_dir / "last.pth").config["seed"] == 1


def test_a_run_that_cannot_be_archived_stays_in_place(config: Config, monkeypatch: pytest.MonkeyPatch) -> None:
    """On Windows, a file that another program has open cannot be moved."""
    folder = train(config.replace(stop_after=1)).folder
    before = {path: path.read_bytes() for path in folder.iterdir() if path.is_file() and path.name != ".lock"}
    rename = Path.rename

    def refuse_last(path: Path, target: Path) -> Path:
        if path.name == "last.pth":
            raise PermissionError(13, "Access is denied")
        return rename(path, target)

    monkeypatch.setattr(Path, "rename", refuse_last)
    with pytest.raises(UserError) as raised:
        train(config.replace(seed=1))
    assert raised.value.code == "run_dir.write"
    assert {path: path.read_bytes() for path in before} == before
    assert not list((folder / "previous").iterdir())
    train(config, resume=True)


def test_an_infinite_evaluation_loss_leaves_a_checkpoint_that_can_be_resumed(
    config: Config, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As of an evaluation in fp16."""
    monkeypatch.setattr(Run, "evaluate", lambda self, *words: replace(evaluate(self, *words), loss=float("inf")))
    folder = train(config.replace(stop_after=1)).folder
    assert load_checkpoint(folder / "last.pth").metrics["loss"] is None
    assert len(train(config, resume=True, finalize=False).history) == 2


def test_two_runs_cannot_share_a_run_directory(config: Config) -> None:
    with RunDir(config.run.run_dir), pytest.raises(UserError, match=str(config.run.run_dir)) as raised:
        train(config)
    assert raised.value.code == "run_dir.locked"


def test_a_nonfinite_loss_stops_the_run_and_keeps_the_last_checkpoint(
    config: Config, monkeypatch: pytest.MonkeyPatch
) -> None:
    train(config.replace(stop_after=1))
    good = weights(config.run.run_dir)
    call = TrainStep.__call__

    def poisoned(self: TrainStep, images: Tensor, labels: Tensor, *, learning_rate: float, step_index: int) -> None:
        images = images * float("nan") if step_index == 6 else images
        call(self, images, labels, learning_rate=learning_rate, step_index=step_index)

    monkeypatch.setattr(TrainStep, "__call__", poisoned)
    with pytest.raises(RunFailed, match=r"step 7 of the run \(epoch 2, step 3\).*--lr") as raised:
        train(config.replace(save_seconds=0), resume=True)
    assert raised.value.code == "train.loss"
    kept = weights(config.run.run_dir)
    assert all(torch.isfinite(tensor).all() for tensor in kept.values())
    assert load_checkpoint(config.run.run_dir / "last.pth").loop["step"] == 2
    assert not torch.equal(good["fc.weight"], kept["fc.weight"])


def test_a_signal_during_an_evaluation_saves_after_it(
    config: Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = train(config.replace(run_dir=tmp_path / "whole")).folder
    with monkeypatch.context() as patch:
        interrupt_evaluations(patch, signal.SIGTERM)
        stopped = train(config)
    assert stopped.stopped_by == signal.SIGTERM
    loop = load_checkpoint(config.run.run_dir / "last.pth").loop
    assert (loop["epoch"], loop["step"]) == (1, 0)
    resumed = train(config, resume=True).folder
    assert_identical(weights(whole), weights(resumed))
    assert figures(whole) == figures(resumed)


def test_after_a_signal_in_the_last_evaluation_resuming_finalizes_the_run(
    config: Config, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = config.replace(epochs=1, warmup_epochs=0)
    with monkeypatch.context() as patch:
        interrupt_evaluations(patch, signal.SIGINT)
        assert train(config).stopped_by == signal.SIGINT
    assert not (config.run.run_dir / "evaluation.json").exists()
    assert train(config, resume=True).stopped_by is None
    assert (config.run.run_dir / "evaluation.json").exists()


def test_resuming_a_finished_run_changes_nothing(config: Config) -> None:
    folder = train(config).folder
    before = weights(folder)
    assert train(config, resume=True).stopped_by is None
    assert_identical(before, weights(folder))
    assert len(figures(folder)) == 2


def test_the_recipe_keeps_its_name_when_a_run_is_resumed(config: Config) -> None:
    train(config.replace(stop_after=1), recipe="fast")
    folder = train(config, resume=True).folder
    last, saved = load_checkpoint(folder / "last.pth"), json.loads((folder / "config.json").read_text())
    assert (last.recipe, last.modified) == (saved["recipe"], saved["modified"]) == ("fast", True)


def test_resuming_in_another_precision_is_reported_as_inexact(
    config: Config, capsys: pytest.CaptureFixture[str]
) -> None:
    train(config.replace(stop_after=1, precision="fp32"))
    assert "bit-identical" not in capsys.readouterr().out
    train(config.replace(precision="bf16"), resume=True)
    assert "Not bit-identical to an uninterrupted run: on cpu (threads" in capsys.readouterr().out


def test_stop_after_a_finished_epoch_is_an_error(config: Config) -> None:
    train(config.replace(epochs=3, stop_after=2))
    with pytest.raises(UserError, match=r"--stop-after 1: .* 2 epochs") as raised:
        train(config.replace(epochs=3, stop_after=1), resume=True)
    assert raised.value.code == "resume.stop_after"


def test_a_failed_run_logs_its_error_and_reports_where_the_previous_one_was_archived(config: Config) -> None:
    train(config.replace(stop_after=1))
    with pytest.raises(RunFailed):
        train(config.replace(lr=1e30, warmup_epochs=0))
    (log,) = config.run.run_dir.glob("training_log_*.txt")
    assert "not a finite number at step" in log.read_text()
    with pytest.raises(UserError, match=rf"{config.run.run_dir}.*previous") as raised:
        train(config, resume=True)
    assert raised.value.code == "resume.no_checkpoint"


@pytest.mark.parametrize("reader", ["head -1", "true"])
@pytest.mark.slow
def test_a_closed_stdout_does_not_stop_a_run(tiny_data: Path, tmp_path: Path, reader: str) -> None:
    words = f"train --epochs 1 --no-report --batch-size 64 --data-dir {tiny_data} --run-dir {tmp_path}/run"
    pipe = f"{sys.executable} {NARROW_CLI} {words} | {reader}"
    subprocess.run(["bash", "-c", pipe], capture_output=True, timeout=600, check=False)
    assert (tmp_path / "run" / "evaluation.json").exists()


@pytest.mark.parametrize("method", ["__call__", "warm_up"])
def test_out_of_memory_names_the_setting_to_lower(config: Config, monkeypatch: pytest.MonkeyPatch, method: str) -> None:
    def full(*_: object, **__: object) -> None:
        raise RuntimeError("[enforce fail at alloc_cpu.cpp] DefaultCPUAllocator: can't allocate memory")

    monkeypatch.setattr(TrainStep, method, full)
    with pytest.raises(RunFailed, match="--batch-size 32") as raised:
        train(config.replace(compile=method == "warm_up"))
    assert raised.value.code == "train.memory"


@pytest.mark.parametrize("full", ["last.pth", "checkpoint_epoch_2.pth", "metrics.jsonl", "evaluation.json"])
def test_a_full_disk_leaves_existing_files_intact(
    config: Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, full: str
) -> None:
    whole = train(config.replace(run_dir=tmp_path / "whole")).folder
    train(config.replace(stop_after=1))
    before = (config.run.run_dir / "last.pth").read_bytes()
    real = os.fsync

    def no_space(descriptor: int) -> None:
        if f".{full}." in os.readlink(f"/proc/self/fd/{descriptor}"):
            raise OSError(28, "No space left on device")
        real(descriptor)

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", no_space)
        with pytest.raises(RunFailed, match=rf"{full} could not be written \(No space left on device\)"):
            train(config.replace(checkpoint_every=2), resume=True)
    assert full != "last.pth" or (config.run.run_dir / "last.pth").read_bytes() == before
    assert not list(config.run.run_dir.glob(".*.tmp"))
    assert_identical(weights(whole), weights(train(config, resume=True).folder))


def test_a_best_checkpoint_that_cannot_be_written_fails_the_run(
    config: Config, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is written in a background thread; the error is raised at the next save at the latest."""
    real = os.fsync

    def no_space(descriptor: int) -> None:
        if ".best_model.pth." in os.readlink(f"/proc/self/fd/{descriptor}"):
            raise OSError(28, "No space left on device")
        real(descriptor)

    monkeypatch.setattr(os, "fsync", no_space)
    threads = threading.active_count()
    with pytest.raises(RunFailed, match=r"best_model.pth could not be written \(No space left on device\)"):
        train(config)
    assert not (config.run.run_dir / "last.pth").exists(), "it would refer to a best checkpoint that does not exist"
    assert threading.active_count() == threads


@pytest.mark.parametrize("save_seconds", [0, 60])
def test_the_best_checkpoint_is_written_while_training_continues(
    config: Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, save_seconds: int
) -> None:
    """It has the weights of its epoch, and no checkpoint that refers to it is written before it is complete."""
    first_epoch = weights(train(config.replace(run_dir=tmp_path / "one", stop_after=1)).folder)
    call, save, stepped = TrainStep.__call__, Checkpoint.save, threading.Event()
    written: list[tuple[str, float]] = []
    best: list[Checkpoint] = []

    def recorded(self: TrainStep, images: Tensor, labels: Tensor, *, learning_rate: float, step_index: int) -> None:
        call(self, images, labels, learning_rate=learning_rate, step_index=step_index)
        if step_index == 4:
            stepped.set()

    def slow(self: Checkpoint, path: Path) -> None:
        if path.name == "best_model.pth":
            assert stepped.wait(timeout=60), "training waited for the checkpoint to be written"
            best.append(self)
        save(self, path)
        written.append((path.name, self.loop["best_top1"]))

    monkeypatch.setattr(TrainStep, "__call__", recorded)
    monkeypatch.setattr(Checkpoint, "save", slow)
    train(config.replace(save_seconds=save_seconds))
    assert_identical(best[0].weights, first_epoch)
    assert written[-1][0] == "last.pth"
    for place, (_, top1) in enumerate(written):
        assert top1 < 0 or ("best_model.pth", top1) in written[: place + 1]


def test_a_plot_that_cannot_be_drawn_does_not_fail_the_run(config: Config, capsys: pytest.CaptureFixture[str]) -> None:
    train(config.replace(stop_after=1))
    (config.run.run_dir / "curves.png").mkdir()
    assert train(config, resume=True).stopped_by is None
    assert "Curves    not written" in capsys.readouterr().out


def test_val_fraction_selects_on_held_out_images(config: Config) -> None:
    result = train(config.replace(val_fraction=0.5))
    assert {row["split"] for row in result.history} == {"val"}
    assert result.history[0]["steps"] == 2, "100 of the 200 images remain in the train split"
    best = load_checkpoint(result.folder / "best_model.pth")
    assert best.selection == Selection(rule="best", split="val")
    assert json.loads((result.folder / "evaluation.json").read_text())["split"] == "test"


def test_eval_every_skips_epochs_but_never_the_last(config: Config) -> None:
    rows = train(config.replace(epochs=3, eval_every=2, warmup_epochs=0)).history
    assert [row["split"] for row in rows] == [None, "test", "test"]


@pytest.mark.usefixtures("narrow")
@pytest.mark.slow
def test_ctrl_c_saves_and_exits_with_130(tiny_data: Path, tmp_path: Path) -> None:
    words = ["train", "--epochs", "50", "--batch-size", "32", "--data-dir", str(tiny_data)]
    process = subprocess.Popen([sys.executable, NARROW_CLI, *words], cwd=tmp_path, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    for line in process.stdout:
        if line.startswith("Epoch   1/50"):
            break
    process.send_signal(signal.SIGINT)
    rest, _ = process.communicate(timeout=600)
    assert process.returncode == 130
    assert "Stopped by SIGINT" in rest
    assert load_checkpoint(tmp_path / "logs" / "cifar100" / "last.pth").loop["epoch"] >= 1


def test_the_checkpoint_is_complete(config: Config) -> None:
    checkpoint = load_checkpoint(train(config.replace(stop_after=1)).folder / "last.pth")
    assert isinstance(checkpoint, Checkpoint)
    assert (checkpoint.model, checkpoint.image_size, len(checkpoint.classes)) == ("resnet18", 32, 100)
    assert checkpoint.mean == [0.5071, 0.4867, 0.4408]
    assert len(checkpoint.optimizer["state"]) == len(list(checkpoint.build().parameters()))
    assert checkpoint.versions["torch"] == torch.__version__
    info = checkpoint.dataset
    assert (info.name, info.verified, info.synthetic) == ("CIFAR-100", False, False)
    assert (info.num_train, info.num_test, info.num_classes, info.image_size) == (200, 100, 100, 32)
    assert len(info.fingerprint) == 64


@pytest.mark.slow
def test_training_ends_with_a_report(config: Config) -> None:
    folder = train(config.replace(report=True, val_fraction=0.5)).folder
    page = " ".join((folder / "report" / "index.html").read_text(encoding="utf-8").split())
    assert "selected: last epoch" in page
    figures = json.loads((folder / "report" / "report.json").read_text())
    assert (figures["calibration"]["fitted_on"], figures["calibration"]["num_images"]) == ("val", 100)
    assert figures["top1"] == json.loads((folder / "evaluation.json").read_text())["top1"]
    (log,) = folder.glob("training_log_*.txt")
    assert f"Report    {folder / 'report' / 'index.html'}" in log.read_text()
    (folder / "report" / "index.html").write_text("not ours")
    assert train(config.replace(report=True, val_fraction=0.5), resume=True).stopped_by is None
    assert "Report    not written: " in log.read_text(), "a failed report must not fail the run"
    train(config)
    assert not (folder / "report").exists(), "the report must be archived with its run"
    assert (next((folder / "previous").iterdir()) / "report" / "index.html").exists()


def test_saving_is_not_counted_as_training_time(config: Config, monkeypatch: pytest.MonkeyPatch) -> None:
    save, saved = Checkpoint.save, []

    def slow(self: Checkpoint, path: Path) -> None:
        time.sleep(0.2)
        saved.append(path)
        save(self, path)

    monkeypatch.setattr(Checkpoint, "save", slow)
    history = train(config.replace(save_seconds=0)).history
    assert len(saved) > len(history), "expected checkpoints in mid-epoch too"
    apart = history[-1]["elapsed_seconds"] - sum(row["train_seconds"] for row in history)
    assert apart > 0.2 * (len(saved) - 2), "all saves but the two of the last epoch precede elapsed_seconds"


def test_the_warm_up_changes_no_state(config: Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The run is bit-identical with a warm-up, which covers every batch shape, in the memory format of training."""
    config = config.replace(optimizer="muon", train_sizes=(16, 32), **EVERYTHING)
    plain = train(config.replace(run_dir=tmp_path / "plain")).folder
    call, shapes = TrainStep.__call__, []

    def recorded(self: TrainStep, images: Tensor, *words: Any, **named: Any) -> None:
        shapes.append((*images.shape[::3], images.is_contiguous(memory_format=torch.channels_last)))
        call(self, images, *words, **named)

    monkeypatch.setattr(TrainStep, "__call__", recorded)
    monkeypatch.setattr(torch, "compile", lambda model, **_: model)
    warmed = train(config.replace(run_dir=tmp_path / "warmed", compile=True)).folder
    assert shapes[:4] == [(64, 16, True), (8, 16, True), (64, 32, True), (8, 32, True)]
    assert set(shapes[4:]) == set(shapes[:4])
    assert_identical(weights(plain), weights(warmed))
    assert json.loads((warmed / "evaluation.json").read_text())["clock"]["warm_up_seconds"] > 0
