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

    Raises UserError if the files are not in `folder` or are others than those of the pinned version, or if they are
    not cached and npm is not installed; RunFailed if npm cannot fetch them.
    """
    if folder is not None:
        return _read_named(folder)
    cache = cache_folder()
    cached = cache / f"{PACKAGE}-{VERSION}" if cache else None
    found = _read(cached) if cached else None
    if found is not None and not _mismatches(found):
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


def _read_named(folder: Path) -> dict[str, bytes]:
    for below in FOLDERS:
        found = _read(folder / below)
        if found is None:
            continue
        wrong = _mismatches(found)
        if wrong:
            raise UserError(
                "runtime.digest",
                f"--runtime {folder}: {wrong[0]} is not that of {PACKAGE} {VERSION} (its SHA-256 differs).",
            )
        return found
    raise UserError("runtime.missing", f"--runtime {folder} does not contain {' and '.join(FILES)} of {PACKAGE}.")


def _read(folder: Path) -> dict[str, bytes] | None:
    try:
        return {name: (folder / name).read_bytes() for name in FILES}
    except OSError:
        return None


def _mismatches(found: dict[str, bytes]) -> list[str]:
    return [name for name, content in found.items() if hashlib.sha256(content).hexdigest() != FILES[name]]


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
            done = subprocess.run(  # noqa: S603 - npm, with constants
                command, cwd=temporary, capture_output=True, text=True, timeout=TIMEOUT, check=False
            )
            archive = next(Path(temporary).glob("*.tgz"), None)
            if done.returncode or archive is None:
                lines = [line for line in done.stderr.splitlines() if line.strip()]
                raise RunFailed(
                    "runtime.npm", f"npm could not fetch {PACKAGE} {VERSION}: {lines[0] if lines else '?'}."
                )
            found = _unpack(archive)
        except (OSError, subprocess.TimeoutExpired, tarfile.TarError, KeyError) as error:
            raise RunFailed(
                "runtime.npm", f"npm could not fetch {PACKAGE} {VERSION} ({type(error).__name__})."
            ) from None
    wrong = _mismatches(found)
    if wrong:
        raise RunFailed(
            "runtime.digest", f"{wrong[0]} from npm is not that of {PACKAGE} {VERSION}: its SHA-256 differs."
        )
    return found


def _unpack(archive: Path) -> dict[str, bytes]:
    found = {}
    with tarfile.open(archive) as tar:
        for name in FILES:
            member = tar.extractfile(f"package/dist/{name}")
            if member is None:
                raise KeyError(name)
            found[name] = member.read()
    return found
