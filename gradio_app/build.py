"""Build the folder to upload as a Hugging Face Space: the files of this directory, the package, and a model.

python gradio_app/build.py FOLDER [--weights pretrained] [--format onnx-int8] [--data-dir DIR]

FOLDER is new, empty, or an earlier build, such as a git clone of the Space: its other files stay.
"""

from __future__ import annotations

import argparse
import shutil
from pathlib import Path

from cifar100.export import export

HERE = Path(__file__).resolve().parent
FILES = ("app.py", "README.md", "requirements.txt", "Dockerfile")
IGNORED = ("__pycache__", "pretrained", "data", "logs", "*.pyi")
"""Not copied from the package: caches, the bundled weights, which the model replaces, and output of runs."""


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("folder", type=Path)
    parser.add_argument("--weights", default="pretrained")
    parser.add_argument("--format", choices=("onnx-int8", "onnx"), default="onnx-int8")
    parser.add_argument("--data-dir", type=Path)
    args = parser.parse_args()
    is_build = (args.folder / ".git").exists() or all((args.folder / name).is_file() for name in FILES)
    if args.folder.exists() and not is_build and (not args.folder.is_dir() or any(args.folder.iterdir())):
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
