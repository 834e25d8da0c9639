"""The command line: one thin verb a task. Nothing heavy loads before a verb needs it, so that help comes at once."""

from __future__ import annotations

import io
import os
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext, redirect_stderr, redirect_stdout
from pathlib import Path
from typing import Any

import tyro
from tyro.conf import OmitArgPrefixes
from tyro.constructors import ConstructorRegistry, PrimitiveConstructorSpec, PrimitiveTypeInfo

from cifar100.cli.app import App
from cifar100.cli.compare import Compare
from cifar100.cli.data import DataCheck, DataGet, DataPreview, DataReport, DataSamples
from cifar100.cli.evaluate import Evaluate
from cifar100.cli.export import Export
from cifar100.cli.model import Model
from cifar100.cli.predict import Predict
from cifar100.cli.push import Push
from cifar100.cli.report import Report
from cifar100.cli.train import Train
from cifar100.support.errors import RunFailed, UserError
from cifar100.support.terminal import emit, emit_error
from cifar100.version import __version__

USAGE = """\
usage: cifar100 VERB [OPTIONS]

Train, evaluate and use a ResNet-18 on CIFAR-100.

  train      train from scratch, or go on with an interrupted run
  evaluate   accuracy of a checkpoint: top-1, top-5, superclasses, classes
  predict    name what is in images
  app        a web page that names what is in pictures
  export     write it for elsewhere: safetensors, ONNX, int8, pt2
  push       share it on the Hugging Face hub
  report     a page about a checkpoint: what it knows, what it confuses, when to believe it
  compare    runs side by side: settings, accuracy, time
  data       download it, check it, see what augmentation does to it
  model      the layers of the network, their shapes and parameters

  cifar100 VERB --help    the options of a verb
  cifar100 --version      the version
"""

COMMANDS: dict[str, Any] = {
    "train": Train,
    "evaluate": Evaluate,
    "predict": Predict,
    "app": App,
    "export": Export,
    "push": Push,
    "report": Report,
    "compare": Compare,
    "data get": DataGet,
    "data check": DataCheck,
    "data report": DataReport,
    "data preview": DataPreview,
    "data samples": DataSamples,
    "model": Model,
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a verb; the exit code: 0 done, 1 failed, 2 the user's mistake, 130 interrupted."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")  # a terminal without UTF-8 still gets its text
    try:
        return _run(words)
    except UserError as error:
        emit_error(error)
        return 2
    except RunFailed as error:
        emit_error(error)
        return 1
    except KeyboardInterrupt:
        emit_error("interrupted")
        return 130
    except BrokenPipeError:  # the reader, `head` say, has seen enough; leave Python nothing to flush at exit
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0


def _run(words: list[str]) -> int:
    if not words or words[0] in ("-h", "--help", "help"):
        emit(USAGE, end="")
        return 0 if words else 2
    if words[0] == "--version":
        emit(f"cifar100 {__version__}")
        return 0
    verb, rest = words[0], words[1:]
    if verb == "data":
        verbs = [name.split()[1] for name in COMMANDS if name.startswith("data ")]
        if not rest or rest[0] not in verbs:
            asked = bool(rest) and rest[0] in ("-h", "--help")
            emit("usage: cifar100 data VERB [OPTIONS]\n")
            for name in verbs:
                emit(f"  {name:<10} {(COMMANDS['data ' + name].__doc__ or '').splitlines()[0]}")
            return 0 if asked else 2
        verb, rest = f"data {rest[0]}", rest[1:]
    if verb not in COMMANDS:
        raise UserError(f"There is no verb {verb!r}; cifar100 --help lists them.")
    with _told_once() if verb == "train" else nullcontext():
        command = tyro.cli(
            COMMANDS[verb],
            prog=f"cifar100 {verb}",
            args=rest,
            default=Train.default(rest) if verb == "train" else tyro.MISSING_NONPROP,
            config=(OmitArgPrefixes,),
            registry=_paths(),
        )
    return command.run()


@contextmanager
def _told_once() -> Iterator[None]:
    """What is wrong with the words of a command is told by the first of the processes that torchrun started with them
    on this machine; it ends the others when that one has ended, so they wait."""
    if os.environ.get("LOCAL_RANK", "0") == "0":
        yield
        return
    try:
        with redirect_stdout(io.StringIO()), redirect_stderr(io.StringIO()):
            yield
    except (UserError, SystemExit) as error:
        code = 2 if isinstance(error, UserError) else error.code
        time.sleep(20 if code else 0)
        raise SystemExit(code) from None


def _paths() -> ConstructorRegistry:
    """How tyro shows and reads a path that may be left out: as PATH, not as {None}|PATH."""
    registry = ConstructorRegistry()

    @registry.primitive_rule
    def optional_path(info: PrimitiveTypeInfo) -> PrimitiveConstructorSpec[Path | None] | None:
        if info.type != Path | None:
            return None
        return PrimitiveConstructorSpec(
            nargs=1,
            metavar="PATH",
            instance_from_str=lambda words: Path(words[0]),
            is_instance=lambda value: value is None or isinstance(value, Path),
            str_from_instance=lambda value: ["none" if value is None else str(value)],
        )

    return registry
