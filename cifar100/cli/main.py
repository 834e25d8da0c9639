"""The command line: one subcommand per task. Nothing heavy is imported before a subcommand needs it."""

from __future__ import annotations

import errno
import io
import os
import signal
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from difflib import get_close_matches
from pathlib import Path
from typing import Any

import docstring_parser
import tyro
from tyro.conf import OmitArgPrefixes
from tyro.constructors import ConstructorRegistry, PrimitiveConstructorSpec, PrimitiveTypeInfo

from cifar100.cli.app import App
from cifar100.cli.classes import Classes
from cifar100.cli.compare import Compare
from cifar100.cli.data import DataCheck, DataDownload, DataPreview, DataReport, DataSamples
from cifar100.cli.doctor import Doctor
from cifar100.cli.evaluate import Evaluate
from cifar100.cli.export import Export
from cifar100.cli.model import Model
from cifar100.cli.predict import Predict
from cifar100.cli.push import Push
from cifar100.cli.report import Report
from cifar100.cli.robustness import Robustness
from cifar100.cli.similar import Similar
from cifar100.cli.train import Train
from cifar100.support.errors import RunFailed, UserError
from cifar100.support.terminal import emit, emit_error
from cifar100.version import __version__

COMMANDS: dict[str, Any] = {
    "train": Train,
    "evaluate": Evaluate,
    "robustness": Robustness,
    "predict": Predict,
    "classes": Classes,
    "similar": Similar,
    "app": App,
    "export": Export,
    "push": Push,
    "report": Report,
    "compare": Compare,
    "data download": DataDownload,
    "data check": DataCheck,
    "data report": DataReport,
    "data preview": DataPreview,
    "data samples": DataSamples,
    "doctor": Doctor,
    "model": Model,
}

ALIASES = {"data get": "data download"}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a subcommand and return the exit code: 0 success, 1 failure, 2 usage error, 130 interrupted, 143
    terminated (SIGTERM or SIGHUP; 130 if a training saved its state)."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    _open_closed_streams()
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            # on Windows a redirected stream has the encoding of the system, in which names would be lost
            encoding = "utf-8" if os.name == "nt" and not stream.isatty() else None
            stream.reconfigure(encoding=encoding, errors="replace")  # for a terminal without UTF-8
    try:
        with _terminable():
            try:
                _check_working_directory()
                return _run(words)
            finally:
                sys.stdout.flush()  # a write error is reported here, not by Python at exit
    except UserError as error:
        emit_error(error)
        return 2
    except RunFailed as error:
        emit_error(error)
        return 1
    except KeyboardInterrupt as error:
        emit_error("terminated" if isinstance(error, _Terminated) else "interrupted")
        return 143 if isinstance(error, _Terminated) else 130
    except BrokenPipeError:  # the reader, such as `head`, has exited; leave Python nothing to flush at exit
        _discard_stdout()
        return 0
    except OSError as error:
        if os.name == "nt" and error.errno == errno.EINVAL and error.filename is None:  # a closed pipe, on Windows
            _discard_stdout()
            return 0
        if error.filename is not None and error.errno in _REFUSALS:
            emit_error(f"{error.filename} cannot be read or written ({error.strerror}).")
            return 2
        if error.filename is None and error.errno in _FULL:
            _discard_stdout()
            emit_error(f"Standard output could not be written ({error.strerror}).")
            return 1
        raise


_REFUSALS = (errno.EACCES, errno.EPERM, errno.EROFS, errno.ENAMETOOLONG, errno.ELOOP, errno.ENOTDIR, errno.EMFILE)
_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO)


class _Terminated(KeyboardInterrupt):
    """SIGTERM or SIGHUP."""


@contextmanager
def _terminable() -> Iterator[None]:
    """Handle SIGTERM and SIGHUP like Ctrl-C, so that temporary files are removed."""

    def terminate(_number: int, _frame: object) -> None:
        raise _Terminated

    before = {}
    if threading.current_thread() is threading.main_thread():  # only the main thread may handle signals
        numbers = [getattr(signal, name) for name in ("SIGTERM", "SIGHUP") if hasattr(signal, name)]
        # not if ignored (nohup) or handled already
        before = {n: signal.signal(n, terminate) for n in numbers if signal.getsignal(n) is signal.SIG_DFL}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _open_closed_streams() -> None:
    """Give standard streams that are closed, which are None, to the null device: `print(file=None)` would print to
    standard output, and a file that is opened later would get the number of a closed one."""
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, mode))  # noqa: SIM115  (open until the process ends)


def _check_working_directory() -> None:
    try:
        os.getcwd()
    except OSError:
        raise UserError("cli.directory", "The working directory no longer exists: change to another one.") from None


def _discard_stdout() -> None:
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _run(words: list[str]) -> int:
    if not words or words[0] in ("-h", "--help", "help"):
        emit(_usage())
        return 0 if words else 2
    if words[0] == "--version":
        emit(f"cifar100 {__version__}")
        return 0
    name, rest = words[0], words[1:]
    if name == "data":
        subcommands = [name.split()[1] for name in COMMANDS if name.startswith("data ")]
        if not rest or rest[0] in ("-h", "--help"):
            emit("usage: cifar100 data COMMAND [OPTIONS]\n")
            for subcommand in subcommands:
                emit(f"  {subcommand:<12}{_summary('data ' + subcommand)}")
            return 0 if rest else 2
        name, rest = f"data {rest[0]}", rest[1:]
    name = ALIASES.get(name, name)
    if name not in COMMANDS:
        close = get_close_matches(name, [*COMMANDS, *ALIASES], n=1)
        hint = f"did you mean {close[0]!r}?" if close else "cifar100 --help lists the commands."
        raise UserError("cli.command", f"There is no command {name!r}; {hint}")
    rest = Train.current_flags(rest) if name == "train" else rest
    with _docstrings_on_one_line():
        command = tyro.cli(
            COMMANDS[name],
            prog=f"cifar100 {name}",
            args=rest,
            default=Train.default(rest) if name == "train" else tyro.MISSING_NONPROP,
            config=(OmitArgPrefixes,),
            registry=_optional_paths(),
        )
    return command.run()


def _usage() -> str:
    commands = {name: _summary(name) for name in COMMANDS if not name.startswith("data ")}
    commands["data"] = "Download, verify, inspect and preview a dataset."
    return "\n".join(
        [
            "usage: cifar100 COMMAND [OPTIONS]\n\nTrain, evaluate and use a ResNet-18 on CIFAR-100.\n",
            *(f"  {name:<12}{text}" for name, text in commands.items()),
            "\n  cifar100 COMMAND --help    options of a command\n  cifar100 --version         version",
        ]
    )


def _summary(name: str) -> str:
    """The first line of a command's help."""
    return (COMMANDS[name].__doc__ or "").partition("\n")[0]


@contextmanager
def _docstrings_on_one_line() -> Iterator[None]:
    """Give tyro the docstring of each field as one line; it would break help at every indented line of the source."""
    parse = docstring_parser.parse_from_object

    def parse_joined(source: object) -> docstring_parser.Docstring:
        parsed = parse(source)
        for parameter in parsed.params:
            parameter.description = " ".join((parameter.description or "").split()) or None
        return parsed

    docstring_parser.parse_from_object = parse_joined
    try:
        yield
    finally:
        docstring_parser.parse_from_object = parse


def _optional_paths() -> ConstructorRegistry:
    """Show and parse an optional path as PATH rather than {None}|PATH."""
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
