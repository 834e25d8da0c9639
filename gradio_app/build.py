"""Makes the folder that is uploaded as a Space: the files beside this one, the package, and one model.

python gradio_app/build.py FOLDER [--weights pretrained] [--format onnx-int8] [--data-dir DIR]
"""

from __future__ import annotations

import argparse
import shutil
from pathlib import Path

from cifar100.export import export

HERE = Path(__file__).resolve().parent
FILES = ("app.py", "README.md", "requirements.txt", "Dockerfile")
LEFT_OUT = ("__pycache__", "pretrained", "data", "logs", "*.pyi")
"""Of the package: what other Pythons made, weights that the model stands for, what runs from inside it left."""


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("folder", type=Path)
    parser.add_argument("--weights", default="pretrained")
    parser.add_argument("--format", choices=("onnx-int8", "onnx"), default="onnx-int8")
    parser.add_argument("--data-dir", type=Path)
    asked = parser.parse_args()
    shutil.rmtree(asked.folder, ignore_errors=True)
    asked.folder.mkdir(parents=True)
    for name in FILES:
        shutil.copy(HERE / name, asked.folder)
    shutil.copytree(HERE.parent / "cifar100", asked.folder / "cifar100", ignore=shutil.ignore_patterns(*LEFT_OUT))
    print(export(Path(asked.weights), asked.format, asked.folder / "model.onnx", data_dir=asked.data_dir))
    size = sum(path.stat().st_size for path in asked.folder.rglob("*") if path.is_file())
    print(f"{asked.folder} is the Space: {size / 2**20:.1f} MiB")


if __name__ == "__main__":
    main()
