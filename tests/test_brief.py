"""The commands, files and code snippets of the project brief, run as a user would.

The tree is copied, values in `config.py` are edited (few epochs, a small batch), and the four commands run from inside
`cifar100/` of the copy, without installing the package.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest
from conftest import ROOT, write_official
from PIL import Image

BARE_PYTHON = getattr(sys, "_base_executable", sys.executable)
"""The interpreter that the virtual environment was created from; editable installs do not affect it."""


class Clone:
    """A copy of the tree in which the four commands of the brief were run in order."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.inside = root / "clone" / "cifar100"
        shutil.copytree(ROOT / "cifar100", self.inside, ignore=shutil.ignore_patterns("__pycache__", "data", "logs"))
        self.edit("epochs: int = 100", "epochs: int = 2")
        self.edit("batch_size: int = 128", "batch_size: int = 32")
        self.edit("checkpoint_every: int = 10", "checkpoint_every: int = 1")
        self.edit("report: bool = True", "report: bool = False")  # other tests write reports
        self.edit("seconds: float = 1.0", "seconds: float = 0.1", "report/augmentation.py")  # of each of four pipelines
        self.data = write_official(root / "data", train_per_class=1, test_per_class=1)
        self.model = self.run("model.py")
        self.edit("width: int = 64", "width: int = 8", "model.py")
        self.utils = self.run("utils.py")
        self.train = self.run("train.py")
        self.inference = self.run("inference.py", "logs/cifar100/best_model.pth")

    def edit(self, old: str, new: str, file: str = "config.py") -> None:
        """Change a value in a file, as a user would with an editor."""
        path = self.inside / file
        text = path.read_text()
        assert text.count(old) == 1, f"{file} no longer contains {old!r}"
        path.write_text(text.replace(old, new))

    def run(self, *words: str, cwd: Path | None = None) -> str:
        """The output of `python WORDS…`, inside cifar100/ unless elsewhere, which must succeed."""
        result = self.start(*words, cwd=cwd)
        assert result.returncode == 0, result.stdout + result.stderr
        return result.stdout

    def start(self, *words: str, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
        """Run `python WORDS…` with the dependencies installed but not this package."""
        return subprocess.run(
            [BARE_PYTHON, *words],
            cwd=cwd or self.inside,
            env={**os.environ, "CIFAR100_DATA_DIR": str(self.data), "PYTHONPATH": sysconfig.get_path("purelib")},
            capture_output=True,
            text=True,
            timeout=600,
            check=False,
        )


@pytest.fixture(scope="module")
def clone(tmp_path_factory: pytest.TempPathFactory) -> Clone:
    return Clone(tmp_path_factory.mktemp("brief"))


def test_the_package_is_not_installed_in_the_clone(clone: Clone) -> None:
    code = "import importlib.util, sys; sys.exit(importlib.util.find_spec('cifar100') is not None)"
    clone.run("-c", code, cwd=clone.root)
    assert re.search(r"Epoch +2/2 ", clone.train)


def test_model_shows_the_architecture_and_11m_parameters(clone: Clone) -> None:
    assert "11,220,132" in clone.model
    assert re.search(r"conv1 +Conv2d 3x3/1 +64 x 32 x 32", clone.model)
    assert re.search(r"layer4\.1\.conv2 +Conv2d 3x3/1 +512 x 4 x 4", clone.model)
    assert re.search(r"fc +Linear +100 +51,300", clone.model)


def test_utils_shows_the_augmentation_and_the_classes(clone: Clone) -> None:
    for phrase in ("4 px of zero padding", "p = 0.5", "16x16", "(0.5071, 0.4867, 0.4408)", "(0.2675, 0.2565, 0.2761)"):
        assert phrase in clone.utils
    assert re.search(r"gives [\d,]+ augmented images/s", clone.utils)
    assert re.search(r"albumentations gives [\d,]+ in this process, [\d,]+ with --num-workers 1", clone.utils)
    assert "100 classes in 20 superclasses" in clone.utils
    assert "aquatic_mammals" in clone.utils
    assert "lawn_mower" in clone.utils
    with Image.open(clone.inside / "augmentations.png") as image:
        assert min(image.size) > 400


def test_train_writes_the_files_that_the_brief_names(clone: Clone) -> None:
    logs = clone.inside / "logs" / "cifar100"
    assert [path.name for path in logs.glob("training_log_*.txt") if re.fullmatch(r"\D+\d{8}_\d{6}\.txt", path.name)]
    for name in ("best_model.pth", "checkpoint_epoch_1.pth", "checkpoint_epoch_2.pth", "last.pth"):
        assert (logs / name).is_file()
    for name in ("metrics.jsonl", "metrics.csv", "config.json"):
        assert (logs / name).is_file()
    with Image.open(logs / "curves.png") as image:
        assert image.size == (1080, 720)
    log = next(logs.glob("training_log_*.txt")).read_text()
    assert "Epoch   2/2" in log
    assert "Final     test top-1" in log


def test_inference_shows_accuracy_throughput_and_samples(clone: Clone) -> None:
    assert re.search(r"top-1 +\d+\.\d\d%", clone.inference)
    assert re.search(r"throughput +[\d,]+ images/s", clone.inference)
    assert len(re.findall(r"(?:right|WRONG)  \w+ +-> \w+ \d", clone.inference)) == 5


SINGLE = """
from cifar100.inference import load_predictor
from PIL import Image

# Load predictor
predictor = load_predictor('logs/cifar100/best_model.pth')

# Predict single image
image = Image.open('test_image.jpg')
results = predictor.predict(image, top_k=5)

# Display results
for class_name, class_id, probability in results:
    print(f"{class_name}: {probability:.2%}")
"""

BATCH = """
from cifar100.inference import load_predictor
from PIL import Image
predictor = load_predictor('logs/cifar100/best_model.pth')

images = [Image.open(f'image_{i}.jpg') for i in range(10)]
batch_results = predictor.predict_batch(images, top_k=5)

for i, results in enumerate(batch_results):
    print(f"\\nImage {i}:")
    for class_name, class_id, prob in results:
        print(f"  {class_name}: {prob:.2%}")
"""


def test_code_snippets_of_the_brief(clone: Clone) -> None:
    """In the directory that contains cifar100/, so that it can be imported."""
    beside = clone.inside.parent
    (beside / "logs").symlink_to(clone.inside / "logs")
    for number in range(10):
        Image.new("RGB", (200 + number, 150), (20 * number, 100, 200)).save(beside / f"image_{number}.jpg")
    shutil.copy(beside / "image_0.jpg", beside / "test_image.jpg")

    no_compiler = "\nimport sys\nassert 'torch._dynamo' not in sys.modules, 'its import takes two seconds'\n"
    code = SINGLE + "print('---')\n" + BATCH + no_compiler
    single, printed = clone.run("-c", code, cwd=beside).split("---\n")
    lines = single.splitlines()
    assert len(lines) == 5
    percentages = [float(re.fullmatch(r"\w+: (\d+\.\d\d)%", line).group(1)) for line in lines]  # type: ignore[union-attr]
    assert percentages == sorted(percentages, reverse=True)
    assert printed.count("Image ") == 10
    assert len(re.findall(r"^  \w+: \d+\.\d\d%$", printed, re.MULTILINE)) == 50


def test_config_defaults_are_those_of_the_brief() -> None:
    from cifar100.config import USE_MPS, Config
    from cifar100.recipes import recipe

    text = (ROOT / "cifar100" / "config.py").read_text()
    assert "USE_MPS = True" in text
    assert "num_workers: int = 0" in text, "no workers by default, as the brief suggests"
    assert USE_MPS is True
    settings = Config().flat()
    brief = {
        "lr": 0.1,
        "momentum": 0.9,
        "nesterov": True,
        "weight_decay": 5e-4,
        "decay_norms": True,
        "warmup_epochs": 5,
        "epochs": 100,
        "batch_size": 128,
        "label_smoothing": 0.1,
        "crop_padding": 4,
        "flip_probability": 0.5,
        "cutout_size": 16,
        "cutout_probability": 0.5,
        "mean": [0.5071, 0.4867, 0.4408],
        "std": [0.2675, 0.2565, 0.2761],
        "model": "resnet18",
        "checkpoint_every": 10,
    }
    assert {name: settings[name] for name in brief} == brief
    assert recipe("baseline") == Config()


@pytest.mark.parametrize("command", [["train.py", "--help"], ["model.py"]])
def test_an_invalid_value_in_config_is_reported_like_one_of_a_flag(clone: Clone, command: list[str]) -> None:
    config = clone.inside / "config.py"
    before = config.read_text()
    try:
        clone.edit("label_smoothing: float = 0.1", "label_smoothing: float = 1.25")
        result = clone.start(*command)
    finally:
        config.write_text(before)
    assert "Traceback" not in result.stderr
    assert result.returncode in (0, 2)
    if command[0] == "train.py":
        assert result.returncode == 2
        assert "--label-smoothing is 1.25" in result.stderr


def test_the_data_directory_of_config_is_used_by_all_scripts(clone: Clone) -> None:
    config = clone.inside / "config.py"
    before = config.read_text()
    try:
        clone.edit("data_dir: Path | None = None", 'data_dir: Path | None = Path("nowhere")')
        results = [
            clone.start("utils.py"),
            clone.start("train.py"),
            clone.start("inference.py", "logs/cifar100/best_model.pth"),
        ]
    finally:
        config.write_text(before)
    for result in results:
        assert result.returncode == 2
        assert "data_dir in config.py is nowhere" in result.stderr
