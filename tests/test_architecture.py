"""The plan of the house, held against its imports: floors, light doors, no shadowed names."""

from __future__ import annotations

import ast
import subprocess
import sys
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest
from conftest import ROOT

FLOORS = [
    {
        "errors",
        "settings",
        "text",
        "files",
        "stopwatch",
        "progress",
        "classes",
        "config",
        "device",
        "processes",
        "stop_signals",
    },
    {
        "dataset",
        "augment",
        "policy",
        "mixing",
        "albumentations_pipeline",
        "images",
        "web_image",
        "overlay",
        "unsure",
        "convolution",
        "filters",
        "duplicates",
        "model",
        "gradient_check",
        "optim",
        "sam",
        "averaging",
        "metrics",
        "calibration",
        "checkpoint",
        "foreign_names",
        "hub",
        "model_card",
        "onnx_file",
        "onnx_forward",
        "weights",
        "run_folder",
        "board",
        "journal",
    },
    {"loader", "step", "sources", "torch_forward"},
    {"evaluate", "inference", "explain", "see", "corruptions", "robustness", "views"},
    {"export"},
    {"report", "page"},
    {"run", "resume", "train"},
    {"recipes", "utils"},
    {"verbs"},
    {"cli"},
]
FLOOR_OF = {room: floor for floor, rooms in enumerate(FLOORS) for room in rooms}
PACKAGE = ROOT / "cifar100"


def room_of(path: Path) -> str:
    return path.relative_to(PACKAGE).with_suffix("").parts[0]


def imported_rooms(path: Path) -> set[str]:
    """The rooms that a file imports, outside its own room and its `__main__` blocks."""
    tree = ast.parse(path.read_text())
    tree.body = [node for node in tree.body if not (isinstance(node, ast.If) and "__main__" in ast.unparse(node.test))]
    modules = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.module:
            modules |= {node.module} | {f"{node.module}.{alias.name}" for alias in node.names}
        elif isinstance(node, ast.Import):
            modules |= {alias.name for alias in node.names}
    names = {module.split(".")[1] for module in modules if module.startswith("cifar100.")}
    return (names & FLOOR_OF.keys()) - {room_of(path)}


DOORS = {PACKAGE / "__init__.py", PACKAGE / "__main__.py"}
FILES = sorted(path for path in PACKAGE.rglob("*.py") if path not in DOORS)


def test_every_room_has_a_floor() -> None:
    assert {room_of(path) for path in FILES} == FLOOR_OF.keys()


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_imports_run_down_the_floors(path: Path) -> None:
    upward = {room for room in imported_rooms(path) if FLOOR_OF[room] > FLOOR_OF[room_of(path)]}
    assert not upward


def test_imports_run_in_no_circle() -> None:
    """Rooms can be taken away one by one, each when nothing that is left in it imports another."""
    left = {room: set().union(*(imported_rooms(path) for path in FILES if room_of(path) == room)) for room in FLOOR_OF}
    while left:
        free = [room for room, needs in left.items() if not needs & left.keys()]
        assert free, f"a circle among {sorted(left)}"
        for room in free:
            del left[room]


def test_no_module_shadows_another_library() -> None:
    """`python train.py` from inside cifar100/ must not find ours where it looks for theirs."""
    others = set(sys.stdlib_module_names) | packages_distributions().keys() - {"cifar100"}
    assert not {path.stem for path in PACKAGE.iterdir() if path.suffix == ".py" or path.is_dir()} & others


LIGHT = [
    ("cifar100", {"torch", "numpy", "PIL", "tyro", "rich", "matplotlib"}),
    ("cifar100.inference", {"torch", "tyro", "rich", "matplotlib"}),
    ("cifar100.onnx_forward", {"torch", "tyro", "rich", "matplotlib", "onnx"}),
    ("cifar100.cli", {"torch", "numpy", "PIL", "matplotlib"}),
    ("cifar100.train", {"PIL", "tyro", "rich", "matplotlib", "albumentations", "cv2"}),
]


@pytest.mark.parametrize(("module", "unwanted"), LIGHT)
def test_importing_stays_light(module: str, unwanted: set[str]) -> None:
    code = f"import sys, {module}; print(*{{name.split('.')[0] for name in sys.modules}})"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert not unwanted & set(loaded)


def test_the_public_names() -> None:
    import cifar100

    code = (
        "import cifar100.train, cifar100.evaluate as e; from cifar100 import train; assert train.__name__ == 'train', e"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
    assert set(cifar100.__all__) == {
        "Config",
        "Predictor",
        "evaluate",
        "load_predictor",
        "resnet18",
        "resnet34",
        "train",
    }
    assert all(callable(getattr(cifar100, name)) for name in cifar100.__all__)
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        cifar100.nothing  # noqa: B018
