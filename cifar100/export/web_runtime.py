"""onnxruntime-web, which runs a model in the browser: downloaded once with npm, verified, and cached."""

from __future__ import annotations

import hashlib
import shutil
import subprocess
import tarfile
import tempfile
from pathlib import Path

from cifar100.dataset.cache import cache_folder
from cifar100.support.errors import RunFailed, UserError
from cifar100.support.files import atomic_write
from cifar100.support.terminal import Say, emit

PACKAGE, VERSION, LICENSE = "onnxruntime-web", "1.30.0", "MIT"
FILES = {
    "ort.wasm.bundle.min.mjs": "11e64bd8ffe11bd1a2a2f0d6275fdfbbba7262f0b76b99b53d228a8a22ef3d90",
    "ort-wasm-simd-threaded.wasm": "3398c10d07d229bd91b364548e130e0e51a8e5704b88c7c083ebbeb78842dee2",
}
"""The build without WebGPU, in the package's dist/: file -> SHA-256."""

FOLDERS = (".", "dist", "package/dist", f"node_modules/{PACKAGE}/dist")
"""Where the files may be, below a directory that the user names."""

TIMEOUT = 600.0  # seconds; the package has 33 MB


def runtime_files(folder: Path | None = None, say: Say = emit) -> dict[str, bytes]:
    """The runtime's files: from `folder` if it is given, else from the cache, else from npm.

    Raises UserError if `folder` does not contain the files of the pinned version, or if they are not cached and npm is
    not installed; RunFailed if npm cannot fetch them.
    """
    if folder is not None:
        found = next(filter(None, (_read(folder / below) for below in FOLDERS)), None)
        if found is None:
            message = f"--runtime {folder} does not contain {' and '.join(FILES)} of {PACKAGE} {VERSION}, unmodified."
            raise UserError("runtime.missing", message)
        return found
    cache = cache_folder()
    cached = cache / f"{PACKAGE}-{VERSION}" if cache else None
    found = _read(cached) if cached else None
    if found is not None:
        return found
    say(f"Fetching {PACKAGE} {VERSION} with npm (33 MB, once)")
    found = _fetch()
    if cached is not None:
        try:
            cached.mkdir(parents=True, exist_ok=True)
            for name, content in found.items():
                atomic_write(cached / name, content)
        except (OSError, RunFailed):
            say(f"It could not be cached in {cached}")
    return found


def _read(folder: Path) -> dict[str, bytes] | None:
    """The files in this folder; None if one is missing or not that of the pinned version."""
    try:
        found = {name: (folder / name).read_bytes() for name in FILES}
    except OSError:
        return None
    return found if _is_pinned(found) else None


def _is_pinned(found: dict[str, bytes]) -> bool:
    return {name: hashlib.sha256(content).hexdigest() for name, content in found.items()} == FILES


def _fetch() -> dict[str, bytes]:
    npm = shutil.which("npm")
    if npm is None:
        raise UserError(
            "runtime.npm",
            f"The site needs {PACKAGE} {VERSION} from npm, and npm is not installed: install Node.js, or unpack the "
            "package and name its directory with --runtime.",
        )
    with tempfile.TemporaryDirectory() as temporary:
        command = [npm, "pack", f"{PACKAGE}@{VERSION}", "--pack-destination", temporary, "--silent"]
        try:
            subprocess.run(  # noqa: S603 - npm, with constants
                command, cwd=temporary, capture_output=True, text=True, timeout=TIMEOUT, check=True
            )
            with tarfile.open(next(Path(temporary).glob("*.tgz"))) as tar:
                members = {name: tar.extractfile(f"package/dist/{name}") for name in FILES}
                found = {name: member.read() for name, member in members.items() if member is not None}
        except (OSError, subprocess.SubprocessError, tarfile.TarError, KeyError, StopIteration) as error:
            lines = error.stderr.split("\n") if isinstance(error, subprocess.CalledProcessError) else []
            reason = next(filter(str.strip, lines), type(error).__name__)
            raise RunFailed("runtime.npm", f"npm could not fetch {PACKAGE} {VERSION} ({reason}).") from None
    if not _is_pinned(found):
        raise RunFailed("runtime.digest", f"npm has other files of {PACKAGE} {VERSION}: their SHA-256 differs.")
    return found
