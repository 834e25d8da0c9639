"""Build the folder to upload as a Hugging Face Space: the files of this directory, the package, and a model.

python gradio_app/build.py FOLDER [--weights pretrained] [--format onnx-int8] [--data-dir DIR]

FOLDER is new, empty, an earlier build, or a git clone of either: other files than those of the build stay.
"""

from __future__ import annotations

import argparse
import os
import shutil
from pathlib import Path

from cifar100.export import export

HERE = Path(__file__).resolve().parent
FILES = ("app.py", "README.md", "requirements.txt", "Dockerfile")
NEW_SPACE = {".git", ".gitattributes", "README.md"}
"""What a clone of a new Space contains."""
IGNORED = ("__pycache__", "pretrained", "data", "logs", "*.pyi")
"""Not copied from the package: caches, the bundled weights, which the model replaces, and output of runs."""


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("folder", type=Path)
    parser.add_argument("--weights", default="pretrained")
    parser.add_argument("--format", choices=("onnx-int8", "onnx"), default="onnx-int8")
    parser.add_argument("--data-dir", type=Path)
    args = parser.parse_args()
    is_build = all((args.folder / name).is_file() for name in (*FILES, "model.onnx"))
    is_new = not args.folder.exists() or (args.folder.is_dir() and {*os.listdir(args.folder)} <= NEW_SPACE)
    if not (is_build or is_new):
        parser.error(f"{args.folder} is neither empty nor an earlier build: choose another folder.")
    args.folder.mkdir(parents=True, exist_ok=True)
    print(export(Path(args.weights), args.format, args.folder / "model.onnx", data_dir=args.data_dir))
    for name in FILES:
        shutil.copy(HERE / name, args.folder)
    shutil.rmtree(args.folder / "cifar100", ignore_errors=True)
    shutil.copytree(HERE.parent / "cifar100", args.folder / "cifar100", ignore=shutil.ignore_patterns(*IGNORED))
    size = sum(path.stat().st_size for path in args.folder.rglob("*") if path.is_file())
    print(f"{args.folder} is the Space: {size / 2**20:.1f} MiB")


if __name__ == "__main__":
    main()
