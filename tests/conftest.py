"""Fixtures: a tiny dataset in the official layout, small networks, and exported models."""

from __future__ import annotations

import os
import pickle
import re
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from narrow_cifar100 import narrow_training
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from cifar100.checkpoints.checkpoint import Checkpoint
from cifar100.dataset import synthetic
from cifar100.dataset.base import Dataset, Split
from cifar100.dataset.classes import CLASSES, SUPERCLASS_OF, SUPERCLASSES
from cifar100.model import ResNet, resnet18
from cifar100.prediction.model_info import ModelInfo
from cifar100.support.provenance import DatasetInfo, TemperatureFit
from cifar100.support.text import escape_control_chars
from cifar100.training.step import TrainStep

SYNTHETIC_INFO = DatasetInfo(name="SYNTHETIC images, not CIFAR-100", synthetic=True)
ROOT = Path(__file__).resolve().parent.parent
NARROW_CLI = str(ROOT / "tests" / "narrow_cifar100.py")

collect_ignore = [] if find_spec("torchvision") else ["test_torchvision.py"]

os.environ.pop("COLUMNS", None)  # it would wrap the messages that are compared

make_synthetic = synthetic.make


@cache
def _synthetic(_train_per_class: int, _test_per_class: int) -> Dataset:
    return make_synthetic()


synthetic.make = lambda: _synthetic(synthetic.TRAIN_PER_CLASS, synthetic.TEST_PER_CLASS)  # half a second, 85 times


def write_official(folder: Path, *, train_per_class: int, test_per_class: int) -> Path:
    """Write a few synthetic images per class in the official `cifar-100-python` layout; return `folder`."""
    dataset = synthetic.make()
    target = folder / "cifar-100-python"
    target.mkdir(parents=True)
    for name, split, per_class in (
        ("train", dataset.train, train_per_class),
        ("test", dataset.test, test_per_class),
    ):
        images, labels = first_of_each_class(split, per_class)
        content = {
            b"data": np.ascontiguousarray(images.transpose(0, 3, 1, 2)).reshape(len(images), -1),
            b"fine_labels": labels.tolist(),
            b"coarse_labels": [SUPERCLASS_OF[label] for label in labels],
            b"filenames": [b"image_%d.png" % number for number in range(len(labels))],
            b"batch_label": b"synthetic",
        }
        (target / name).write_bytes(pickle.dumps(content, protocol=2))
    names = {b"fine_label_names": encoded(CLASSES), b"coarse_label_names": encoded(SUPERCLASSES)}
    (target / "meta").write_bytes(pickle.dumps(names, protocol=2))
    return folder


def first_of_each_class(split: Split, per_class: int) -> tuple[np.ndarray, np.ndarray]:
    """The first `per_class` images of each class, in an order that differs from the canonical one."""
    place = np.arange(len(split)) - np.searchsorted(split.labels, split.labels)
    rows = np.flatnonzero(place < per_class)[::-1]
    return split.images[rows], split.labels[rows]


def encoded(names: tuple[str, ...]) -> list[bytes]:
    return [name.encode() for name in names]


def untrained(**fields: Any) -> Checkpoint:
    """A checkpoint of an untrained resnet18 for CIFAR-100; `fields` override its content."""
    expected: dict[str, Any] = {
        "model": "resnet18",
        "weights": fields.get("weights") or resnet18().state_dict(),
        "classes": list(CLASSES),
        "superclasses": list(SUPERCLASSES),
        "superclass_of": list(SUPERCLASS_OF),
        "mean": [0.5, 0.4, 0.3],
        "std": [0.2, 0.25, 0.3],
    }
    return Checkpoint(**(expected | fields))


def narrow_network(name: str, num_classes: int) -> ResNet:
    """The named network with an eighth of its width."""
    return ResNet((2, 2, 2, 2) if name == "resnet18" else (3, 4, 6, 3), num_classes, width=8)


def random_checkpoint(**fields: Any) -> Checkpoint:
    """A checkpoint of a narrow network with random batch-norm statistics and well-separated logits, which claims to be
    trained on synthetic images."""
    torch.manual_seed(0)
    model = narrow_network("resnet18", 100)
    for module in model.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            torch.nn.init.uniform_(module.weight, 0.5, 1.5)
            torch.nn.init.normal_(module.bias, std=0.2)
            module.running_mean = torch.randn(module.num_features) * 0.2
            module.running_var = torch.rand(module.num_features) + 0.5
    torch.nn.init.normal_(model.fc.weight, std=0.5)
    expected: dict[str, Any] = {
        "config": {"dataset": "synthetic"},
        "dataset": SYNTHETIC_INFO,
    }
    return untrained(**({"weights": model.state_dict()} | expected | fields))


class FakeBackend:
    """A `Backend` that computes logits [B, C] from uint8 [B, S, S, 3] by `forward`; its activation maps are all 1."""

    def __init__(self, forward: Callable[[np.ndarray], np.ndarray], classes: Sequence[str], size: int = 32) -> None:
        self.forward = forward
        self.info = ModelInfo(
            name="fake.pth",
            source="",
            sha256="0123456789abcdef",
            network="fake",
            hardware="nothing",
            classes=tuple(classes),
            image_size=size,
            dataset=DatasetInfo(),
            evaluation={},
        )

    def logits(self, pixels: np.ndarray) -> np.ndarray:
        return self.forward(pixels)

    def logits_and_cams(self, pixels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        return self.forward(pixels), np.ones((len(pixels), len(self.info.classes), 4, 4), np.float32)

    def features(self, pixels: np.ndarray) -> np.ndarray:
        return self.forward(pixels)


def assert_identical(a: dict[str, Tensor], b: dict[str, Tensor]) -> None:
    """Assert that two state dicts are bit-identical."""
    assert a.keys() == b.keys()
    different = [name for name in a if not torch.equal(a[name], b[name])]
    assert not different


def at_step(monkeypatch: pytest.MonkeyPatch, step: int, act: Callable[[], object]) -> None:
    """Call `act` during one step of the next run."""
    call = TrainStep.__call__

    def acting(self: TrainStep, images: Tensor, labels: Tensor, *, learning_rate: float, step_index: int) -> None:
        if step_index == step:
            act()
        call(self, images, labels, learning_rate=learning_rate, step_index=step_index)

    monkeypatch.setattr(TrainStep, "__call__", acting)


def printed_on_a_terminal(*words: str, columns: int) -> str:
    """What `python WORDS…`, which must succeed, prints in tests/ on a terminal of this width, without escape codes."""
    import pty

    ours, theirs = pty.openpty()
    environment = {**os.environ, "COLUMNS": str(columns), "TERM": "xterm-256color"}
    command = [sys.executable, *words]
    process = subprocess.Popen(command, stdout=theirs, stderr=theirs, cwd=ROOT / "tests", env=environment)
    os.close(theirs)
    shown = b""
    with suppress(OSError):  # the other end of the pseudo-terminal is closed
        while part := os.read(ours, 4096):
            shown += part
    assert process.wait(timeout=600) == 0
    return re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", shown.decode())


class DeviceReads(TorchDispatchMode):
    """Counts the reads of tensor values by Python inside this context, each of which would synchronize with a GPU."""

    def __init__(self) -> None:
        super().__init__()
        self.count = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.count += func is torch.ops.aten._local_scalar_dense.default
        return func(*args, **(kwargs or {}))


def assert_one_sentence(message: str, *names: object) -> None:
    """Assert that a message, as printed, ends like a sentence, is below 600 characters and contains all `names`."""
    message = escape_control_chars(message)  # as it is printed
    assert message.endswith((".", "?"))
    assert len(message) < 600
    for name in names:
        assert str(name) in message


@pytest.fixture
def default_sighup() -> Iterator[None]:
    """Restore the default action of SIGHUP, which nohup changes to ignore."""
    before = signal.signal(signal.SIGHUP, signal.SIG_DFL)
    yield
    signal.signal(signal.SIGHUP, before)


@pytest.fixture(scope="session")
def tiny_data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """200 train and 100 test images in the official layout."""
    return write_official(tmp_path_factory.mktemp("tiny"), train_per_class=2, test_per_class=1)


@pytest.fixture(scope="session")
def exports(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with best.pth, best.onnx and best.safetensors of a narrow network."""
    folder = tmp_path_factory.mktemp("exports")
    random_checkpoint(calibration=TemperatureFit(temperature=1.5)).save(folder / "best.pth")
    _export(folder, "onnx", "safetensors")
    return folder


@pytest.fixture(scope="session")
def all_exports(exports: Path) -> Path:
    """The same directory with best.int8.onnx and best.pt2 too, for slow tests."""
    _export(exports, "onnx-int8", "pt2")
    return exports


def _export(folder: Path, *formats: Any) -> None:
    from cifar100.export import export

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("cifar100.checkpoints.checkpoint.build_model", narrow_network)
        patch.setattr("cifar100.export.CALIBRATION_IMAGES", 128)
        for format in formats:
            export(folder / "best.pth", format, images=200, say=lambda _: None)


@pytest.fixture(scope="session", autouse=True)
def isolated_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Cache decoded images in a temporary directory."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(scope="session", autouse=True)
def short_speed_measurements() -> Iterator[None]:
    """Measure the speed of exported files in a single pass instead of seconds."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("cifar100.export.check.SPEED_SECONDS", 0)
        yield


@pytest.fixture
def narrow_checkpoints(monkeypatch: pytest.MonkeyPatch) -> None:
    """Load checkpoints into narrow networks in this test."""
    monkeypatch.setattr("cifar100.checkpoints.checkpoint.build_model", narrow_network)


@pytest.fixture
def narrow(monkeypatch: pytest.MonkeyPatch) -> None:
    """Train a network with under 1 % of the FLOPs of resnet18 in this test, and plot nothing."""
    narrow_training(monkeypatch.setattr)


def pytest_configure() -> None:
    """If the tests run as a background job of a script, SIGINT is ignored, also in the processes that they start."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Without the real CIFAR-100, tests marked `real_data` are skipped."""
    if not os.environ.get("CIFAR100_DATA_DIR"):
        for item in items:
            if item.get_closest_marker("real_data"):
                item.add_marker(pytest.mark.skip(reason="$CIFAR100_DATA_DIR is not set"))


def pytest_sessionfinish(session: pytest.Session) -> None:
    """In CI a skipped test, such as for a missing dependency, is a failure."""
    reporter = session.config.pluginmanager.get_plugin("terminalreporter")
    skipped = reporter.stats.get("skipped", []) if reporter else []
    if os.environ.get("CI") and reporter and skipped:
        reporter.write_line(f"CI: {len(skipped)} tests were skipped, which counts as failure", red=True)
        session.exitstatus = pytest.ExitCode.TESTS_FAILED
