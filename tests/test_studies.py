"""Benchmark scripts: studies over seeds, the throughput of a GPU, and the bundled weights."""

from __future__ import annotations

import json
import sys
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import ROOT, narrow_network, random_checkpoint

from cifar100.checkpoints import checkpoint as checkpoints
from cifar100.checkpoints.weights import load_weights, save_weights
from cifar100.compute.device import select_device
from cifar100.config import Config
from cifar100.dataset import Split
from cifar100.model import ResNet
from cifar100.optim.build import build_optimizer
from cifar100.optim.ema import ModelEma
from cifar100.recipes import recipe
from cifar100.training.step import TrainStep

STUDIES = sorted((ROOT / "benchmarks" / "studies").glob("*.json"))


@pytest.fixture
def study(monkeypatch: pytest.MonkeyPatch) -> Any:
    """benchmarks/study.py as a module."""
    monkeypatch.syspath_prepend(ROOT / "benchmarks")
    return import_module("study")


@pytest.mark.parametrize("path", STUDIES, ids=lambda path: path.stem)
def test_runs_of_a_study_have_distinct_configs(path: Path) -> None:
    content = json.loads(path.read_text())
    configs = []
    for settings in content["runs"].values():
        wanted = {"recipe": "baseline"} | content["settings"] | settings
        start = recipe(wanted.pop("recipe"), wanted.get("epochs"))
        configs.append(Config.from_flat(start.flat() | wanted).flat())
    assert all(config not in configs[:place] for place, config in enumerate(configs))
    assert len(content["seeds"]) > 1


def test_a_subsample_is_stratified_and_average_pooled(study: Any) -> None:
    labels = np.repeat(np.arange(3), 8)
    images = np.arange(24 * 4 * 4 * 3, dtype=np.uint32).reshape(24, 4, 4, 3).astype(np.uint8)
    small = study.subsample(Split(images, labels, "proven"), 4, halved=True)
    assert small.labels.tolist() == [0, 0, 1, 1, 2, 2]
    assert small.images.shape == (6, 2, 2, 3)
    assert small.images[1, 0, 1].tolist() == images[4, :2, 2:].mean((0, 1)).round().tolist()
    assert small.fingerprint == "", "not the published dataset"


def test_a_study_compares_paired_seeds_and_resumes(
    study: Any,
    tiny_data: Path,
    tmp_path: Path,
    narrow: None,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    settings = {"recipe": "fast", "epochs": 1, "warmup_epochs": 0, "batch_size": 64, "val_fraction": 0.5}
    settings |= {"train_sizes": [], "crop_padding": 2}
    runs = {"plain": {}, "wild, at once": {"lr": 1e30, "optimizer": "sgd"}, "no smoothing": {"label_smoothing": 0.0}}
    content = {"about": "", "halved": True, "seeds": [0, 1], "settings": settings, "runs": runs}
    (tmp_path / "study.json").write_text(json.dumps(content))
    out = tmp_path / "out"

    def call(*words: str) -> list[str]:
        fixed = ["study.py", str(tmp_path / "study.json"), "--data-dir", str(tiny_data), "--out", str(out)]
        monkeypatch.setattr(sys, "argv", [*fixed, *words])
        study.main()
        return capsys.readouterr().out.splitlines()

    lines = call("--seeds", "0", "--runs", "plain", "wild, at once")
    assert any(line.startswith("wild, at once, seed 0 failed: RunFailed") for line in lines)
    kept = out / "plain_seed0.json"
    assert [path.name for path in out.glob("*.json")] == [kept.name], "a failed run is not stored as done"
    first = json.loads(kept.read_text())
    assert first["split"] == "val", "the test set is not used"
    assert not {"data_dir", "run_dir"} & set(first["settings"]), "no paths of this machine"
    assert not list(out.rglob("evaluation.json"))

    written = kept.stat().st_mtime_ns
    last = call("--runs", "plain", "no smoothing")
    assert kept.stat().st_mtime_ns == written, "finished runs are not repeated"
    results = {path.stem: 100 * json.loads(path.read_text())["top1"] for path in out.glob("*.json")}
    (line,) = [line for line in last if line.startswith("no smoothing")][-1:]
    differences = [results[f"no_smoothing_seed{seed}"] - results[f"plain_seed{seed}"] for seed in (0, 1)]
    assert line.split()[2] == "2"
    assert f"{sum(differences) / 2:+.2f}" in line
    assert last[-1] == "Left for the next call: wild_at_once_seed0, wild_at_once_seed1"


def test_gpu_script_dry_run_on_the_cpu(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.syspath_prepend(ROOT / "benchmarks")
    gpu = import_module("gpu")
    monkeypatch.setattr(gpu, "resnet18", lambda: ResNet((1, 1, 1, 1), 100, 8))
    out = tmp_path / "throughput.json"
    monkeypatch.setattr(sys, "argv", ["gpu.py", "--out", str(out), "--device", "cpu", "--dry"])
    gpu.main()
    rows = json.loads(out.read_text())["rows"]
    assert [row.get("failed") for row in rows] == [None, None]
    assert all(row["images_per_second"] > 0 and row["step_images_per_second"] > 0 for row in rows)
    table = [line.split()[:4] for line in capsys.readouterr().out.splitlines() if line.startswith("eager")]
    assert table == [["eager", "16", "32", "sgd"], ["eager", "16", "16", "muon"]]
    sizes = {(row["way"], row["batch_size"]) for row in gpu.measured_steps(dry=False)}
    assert sizes >= {(way, size) for way in ("eager", "compiled") for size in (128, 256, 500, 768)}


def test_the_step_for_cuda_graphs_trains_as_the_plain_one(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two shapes, hard and soft labels, EMA; without a GPU the captured work runs as it is."""
    monkeypatch.syspath_prepend(ROOT / "benchmarks")
    graphs = import_module("cuda_graph_step")
    monkeypatch.setattr(graphs.CudaGraphStep, "capture", lambda step, *_batch: step.work)
    compute = select_device("cpu", "fp32")
    optim = recipe("best").optim
    trained = []
    for kind in (TrainStep, graphs.CudaGraphStep):
        torch.manual_seed(0)
        model = compute.prepare(ResNet((1, 1, 1, 1), 10, 8)).train()
        ema = ModelEma(model, 0.9)
        step = kind(model, build_optimizer(model, optim), compute, optim, ema=ema)
        for number, side in enumerate((16, 24)):
            images = torch.randn(12, 3, side, side)
            labels = torch.rand(12, 10).softmax(1) if number else torch.arange(12) % 10
            step(images, labels, learning_rate=0.3 / (1 + number), step_index=number)
        assert step.num_samples == 24
        sums = [step.loss_sum, step.correct, step.first_nonfinite_step]
        trained.append([*sums, *model.state_dict().values(), *ema.model.state_dict().values()])
    for plain, graphed in zip(*trained, strict=True):
        difference = (graphed - plain).double().norm()  # Muon's arithmetic is bf16, so rounding errors grow
        assert difference <= 0.02 * plain.double().norm() + 1e-6


def test_bundle_combines_two_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The fp16 weights are evaluated; the temperature is fitted on the images that the sibling run held out."""
    monkeypatch.syspath_prepend(ROOT / "benchmarks")
    monkeypatch.setattr(checkpoints, "build_model", narrow_network)
    bundle = import_module("bundle")
    best = recipe("best").replace(dataset="synthetic")
    save_weights(random_checkpoint(config=best.flat(), recipe="fast", modified=True), tmp_path / "run.safetensors")
    held_out = random_checkpoint(config=best.replace(val_fraction=0.1).flat(), recipe="fast", modified=True)
    save_weights(held_out, tmp_path / "sibling.safetensors")
    words = [tmp_path / "run.safetensors", "--sibling", tmp_path / "sibling.safetensors"]
    out = tmp_path / "out.safetensors"
    monkeypatch.setattr(sys, "argv", ["bundle.py", *map(str, words), "--out", str(out)])
    bundle.main()
    made = load_weights(out)
    assert made.weights["fc.weight"].equal(random_checkpoint().weights["fc.weight"].half().float())
    assert (made.evaluation["split"], made.evaluation["images"]) == ("test", 600)
    assert made.calibration is not None
    assert (made.calibration.fitted_on, made.calibration.num_images) == ("sibling-val", 200)
    held_out.config["lr"] = 0.1
    save_weights(held_out, tmp_path / "sibling.safetensors")
    with pytest.raises(AssertionError, match="other settings"):
        bundle.main()
