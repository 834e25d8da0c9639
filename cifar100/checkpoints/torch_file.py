"""Read a file of `torch.save` without running code from it, in time and memory that its size bounds.

Both formats are read: the zip archive, and the sequence of pickles that PyTorch wrote before 1.6. `weights_only=True`
runs no code. The pickle is scanned first, to name the objects that are not loaded, and because hashing tuples that
contain one another takes exponential time.
"""

from __future__ import annotations

import errno
import io
import os
import pickletools
import re
import warnings
import zipfile
from pathlib import Path
from typing import IO, Any

import torch

from cifar100.support.errors import UserError
from cifar100.support.files import content_hint, not_a_file

LEGACY_START = b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19."
"""The first pickle of the older format: its magic number."""

MAX_PICKLE_BYTES = 1 << 25
MAX_OPCODES = 2_000_000
MAX_HASHED = 10_000_000
"""Values that are hashed, with what they contain."""

POPPED = {"TUPLE1": 1, "TUPLE2": 2, "TUPLE3": 3, "REDUCE": 2, "NEWOBJ": 2, "BINPERSID": 1}
POPPED |= {"APPEND": 1, "SETITEM": 2, "BUILD": 1}
"""Values that an opcode takes from the stack."""

POP_TO_MARK = {"TUPLE", "APPENDS", "SETITEMS"}
PUSH_NOTHING = {"MARK", "APPEND", "APPENDS", "SETITEM", "SETITEMS", "BUILD", "PUT", "BINPUT", "LONG_BINPUT", "PROTO"}

TENSOR_GLOBALS = re.compile(
    r"torch\.(Size|device|\w+Storage|storage\.(Untyped|Typed)Storage|(u?int|b?float|complex)\d\w*|bool"
    r"|_utils\._rebuild_(tensor(_v[23])?|parameter(_with_state)?)|nn\.parameter\.Parameter)"
    r"|collections\.(OrderedDict|Counter)|_codecs\.encode|(builtins|__builtin__)\.set"
)
"""The globals of tensors and plain containers, "module.name"."""

IGNORED_GLOBALS = (
    "argparse.Namespace",
    "numpy.dtype",
    "numpy.ndarray",
    *(f"numpy.{core}.multiarray.{name}" for core in ("core", "_core") for name in ("scalar", "_reconstruct")),
    *(f"numpy.dtypes.{name}DType" for name in ("Float16", "Float32", "Float64", "Int32", "Int64", "Bool")),
    *(f"{module}.{kind}Path" for module in ("pathlib", "pathlib._local") for kind in ("Posix", "Windows")),
)
"""Objects that trainers often save next to the weights. Each is replaced by a placeholder."""


class Ignored:
    """The placeholder for an object in `IGNORED_GLOBALS`."""

    def __init__(self, *_arguments: object) -> None:
        pass

    def __setstate__(self, _state: object) -> None:
        pass


def read_torch_file(path: Path) -> dict[str, Any]:
    """The dictionary in a file of `torch.save`, its tensors in CPU memory.

    Raises UserError if there is no such file, or it is damaged, malicious or of another format.
    """
    name = str(path)
    if not os.path.isfile(path):  # unlike Path.is_file, raises nothing for a name that is too long
        raise UserError("checkpoint.missing", f"There is no checkpoint {name}.{not_a_file(path)}")
    try:
        with path.open("rb") as file:
            is_zip = file.read(4) == b"PK\x03\x04"
            file.seek(0)
            found = _scan_archive(name, path) if is_zip else _scan_legacy(name, file)
    except (OSError, zipfile.BadZipFile) as error:
        if isinstance(error, OSError) and error.errno != errno.EINVAL:  # zipfile's, for an offset before the start
            raise UserError("checkpoint.unreadable", f"{name} cannot be read ({error.strerror or error}).") from None
        raise UserError("checkpoint.damaged", f"{name} is damaged: it is no whole zip archive.") from None
    except UserError:
        raise
    except Exception as error:  # zipfile and pickletools raise many kinds
        raise _damaged(name, error) from None
    unknown = sorted(item for item in found if not TENSOR_GLOBALS.fullmatch(item) and item not in IGNORED_GLOBALS)
    if unknown:
        more = f" and {len(unknown) - 1} more" if len(unknown) > 1 else ""
        raise UserError(
            "checkpoint.objects",
            f"{name} is refused: it holds {unknown[0][:100]}{more}, and only tensors and plain values are "
            "loaded. Save only the weights in the program that wrote it: torch.save(model.state_dict(), PATH).",
        )
    try:
        with (
            warnings.catch_warnings(action="ignore"),
            torch.serialization.safe_globals([(Ignored, item) for item in IGNORED_GLOBALS]),
        ):
            content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch.load raises many kinds for a damaged file
        raise _damaged(name, error) from None
    if not isinstance(content, dict):
        raise UserError("checkpoint.content", f"{name} holds a {type(content).__name__}, not a checkpoint of cifar100.")
    return content


def _damaged(name: str, error: Exception) -> UserError:
    return UserError(
        "checkpoint.damaged",
        f"{name} is damaged, or not a checkpoint of cifar100: it does not load ({type(error).__name__}).",
    )


def _scan_archive(name: str, path: Path) -> set[str]:
    """The globals in the pickle of a zip archive, whose checksums `torch.load` does not verify."""
    with zipfile.ZipFile(path) as archive:
        parts = archive.infolist()
        inner = {part.filename.partition("/")[2] for part in parts}
        program = "TorchScript" if "constants.pkl" in inner else "torch.export" if "archive_format" in inner else ""
        if program:
            raise UserError(
                "checkpoint.program",
                f"{name} is a {program} file, a compiled program: save the state dict of the model instead, "
                "torch.save(model.state_dict(), PATH).",
            )
        if any(part.compress_type != zipfile.ZIP_STORED for part in parts):
            raise UserError(
                "checkpoint.compressed", f"{name} is refused: its parts are compressed, which torch.save never does."
            )
        if sum(part.file_size for part in parts) > os.path.getsize(path) or archive.testzip() is not None:
            raise UserError("checkpoint.damaged", f"{name} is damaged: a part does not match its checksum.")
        found = set()
        for part in parts:
            if part.filename.rpartition("/")[2] == "data.pkl":
                if part.file_size > MAX_PICKLE_BYTES:
                    raise UserError(
                        "checkpoint.too_long",
                        f"{name} is refused: it holds {part.file_size >> 20:,} MiB outside of tensors, such as NumPy "
                        "arrays. Save only the weights: torch.save(model.state_dict(), PATH).",
                    )
                found |= _scan_pickle(io.BytesIO(archive.read(part)))
        return found


def _scan_legacy(name: str, file: IO[bytes]) -> set[str]:
    """The globals in the pickles of the older format: magic number, version, system, content, keys of storages."""
    start = file.read(64)
    if not start.startswith(LEGACY_START):
        hint = content_hint(start)
        if not hint and start.startswith(b"\x80"):
            hint = " It is a pickle: write it with torch.save(model.state_dict(), PATH)."
        raise UserError(
            "checkpoint.format",
            f"{name} is damaged, or not a checkpoint: it is no zip archive as torch.save writes.{hint}",
        )
    file.seek(len(LEGACY_START))
    return set().union(*(_scan_pickle(file) for _ in range(4)))


def _scan_pickle(file: IO[bytes]) -> set[str]:
    """The globals, as "module.name", that the next pickle in a file names.

    Raises ValueError, or what reading a damaged pickle raises, if it is too expensive to load. `stack` and `memo` hold,
    for each value of the unpickler's, how many values are hashed with it: 1, or for a tuple all that it contains.
    """
    found: set[str] = set()
    stack: list[int] = []
    marked: list[list[int]] = []
    memo: dict[int, int] = {}
    num_hashed = 0
    for num_opcodes, (opcode, argument, _) in enumerate(pickletools.genops(file)):
        name, size = opcode.name, 1
        if name == "MARK":
            marked.append(stack)
            stack = []
        elif name in POP_TO_MARK:
            size += sum(stack)
            stack = marked.pop()
        elif name in POPPED:
            size += sum(stack.pop() for _ in range(POPPED[name]))
        elif name.endswith("GET"):
            size = memo[int(argument or 0)]
        elif name.endswith("PUT"):
            memo[int(argument or 0)] = stack[-1]
        elif name == "GLOBAL":
            found.add(str(argument).replace(" ", "."))
        if name not in PUSH_NOTHING:
            stack.append(size)
        num_hashed += size
        if num_opcodes > MAX_OPCODES or num_hashed > MAX_HASHED:
            raise ValueError("too expensive")
    return found
