"""Imports follow the layers of docs/architecture.md without cycles; import cost; module names; public names."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from graphlib import TopologicalSorter
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest
from conftest import ROOT

PACKAGE = ROOT / "cifar100"
FILES = sorted(PACKAGE.rglob("*.py"))


def documented_layers() -> dict[str, int]:
    """The layer of each package and top-level module: rows `| 3 | `a`, `b` | … |` of docs/architecture.md."""
    rows = re.findall(r"^\| (\d+) \| ([^|]+) \|", (ROOT / "docs" / "architecture.md").read_text(), flags=re.M)
    return {name: int(layer) for layer, names in rows for name in re.findall(r"`(\w+)`", names)}


LAYER_OF = documented_layers()


def unit_of(path: Path) -> str:
    """The package, or the top-level module, that a file belongs to."""
    return path.relative_to(PACKAGE).with_suffix("").parts[0]


def module_of(path: Path) -> str:
    """The dotted name of a file."""
    return ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


MODULES = {module_of(path): path for path in FILES}


def imported_modules(path: Path) -> set[str]:
    """The modules of this package that a file imports at any place."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.module:
            submodules = {f"{node.module}.{alias.name}" for alias in node.names} & MODULES.keys()
            names |= submodules or {node.module}
        elif isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
    return names & MODULES.keys()


def test_every_package_has_a_layer() -> None:
    assert {unit_of(path) for path in FILES} - {"__init__"} == LAYER_OF.keys()


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_no_import_from_a_higher_layer(path: Path) -> None:
    units = {unit_of(MODULES[name]) for name in imported_modules(path)} - {unit_of(path), "__init__"}
    layer = max(LAYER_OF.values()) if unit_of(path) == "__init__" else LAYER_OF[unit_of(path)]
    assert not {unit for unit in units if LAYER_OF[unit] > layer}


def test_imports_form_no_cycle() -> None:
    """Neither those of modules nor those of packages; `prepare` raises a CycleError that names the cycle."""
    modules = {name: imported_modules(path) - {name} for name, path in MODULES.items()}
    packages: dict[str, set[str]] = {}
    for name, imported in modules.items():
        unit = unit_of(MODULES[name])
        packages.setdefault(unit, set()).update({unit_of(MODULES[other]) for other in imported} - {unit, "__init__"})
    del packages["__init__"]
    for needs in (modules, packages):
        TopologicalSorter(needs).prepare()


def test_no_module_shadows_another_library() -> None:
    """`python train.py` from inside cifar100/ must not find our modules in place of installed ones."""
    others = set(sys.stdlib_module_names) | packages_distributions().keys() - {"cifar100"}
    assert not {path.stem for path in PACKAGE.iterdir() if path.suffix == ".py" or path.is_dir()} & others


LIGHT = [
    ("cifar100", {"torch", "numpy", "PIL", "tyro", "rich", "matplotlib"}),
    ("cifar100.images.convert", {"torch", "tyro", "rich", "matplotlib"}),
    ("cifar100.inference", {"torch", "tyro", "rich", "matplotlib"}),
    ("cifar100.prediction.onnx_backend", {"torch", "tyro", "rich", "matplotlib", "onnx"}),
    ("cifar100.cli.main", {"torch", "numpy", "PIL", "matplotlib"}),
    ("cifar100.train", {"PIL", "tyro", "rich", "matplotlib", "albumentations", "cv2"}),
]


@pytest.mark.parametrize(("module", "unwanted"), LIGHT)
def test_imports_load_no_heavy_library(module: str, unwanted: set[str]) -> None:
    code = f"import sys, {module}; print(*{{name.split('.')[0] for name in sys.modules}})"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert not unwanted & set(loaded)


def test_public_names() -> None:
    import cifar100

    assert set(cifar100.__all__) == {"Config", "Predictor", "__version__", "load_predictor", "resnet18", "resnet34"}
    assert all(getattr(cifar100, name) for name in cifar100.__all__)
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        cifar100.nothing  # noqa: B018
