"""Downloads CIFAR-100 from the Hugging Face Hub, or from its home page, and verifies it.

A download in progress is in a hidden directory of the target, so that an interrupted one resumes; the verified dataset
is then moved into place atomically.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from http.client import HTTPException
from pathlib import Path

from filelock import FileLock

from cifar100.dataset import binary, official, parquet, pickles
from cifar100.dataset.archive import open_archive
from cifar100.dataset.base import Dataset, read_published
from cifar100.dataset.published import CIFAR100
from cifar100.dataset.tree import on_disk
from cifar100.support.errors import UserError
from cifar100.support.progress import progress
from cifar100.support.terminal import Say, emit

HUB = "https://huggingface.co"
HUB_REPOSITORY = "uoft-cs/cifar100"
HUB_REVISION = "aadb3af77e9048adbea6b47c21a81e47dd092ae5"
HUB_FILES = ("cifar100/train-00000-of-00001.parquet", "cifar100/test-00000-of-00001.parquet")

HOMES = ("https://www.cs.toronto.edu/~kriz/", "https://cave.cs.toronto.edu/kriz/")
ARCHIVE = pickles.FORMATS[0].archive
ARCHIVE_MD5 = "eb9058c3a382ffc7106e4002c42a8d85"
MAX_ARCHIVE_BYTES = 1 << 28  # the archive has 161 MiB

ATTEMPTS = 3
"""Per address; each attempt resumes at the byte at which the previous one ended."""
RETRY_SECONDS = 0.5
TIMEOUT = 20.0
"""Seconds without a byte, after which a connection counts as stalled."""


class _SourceFailed(Exception):
    """A source failed; the next is tried."""


def download_cifar100(folder: Path, say: Say = emit) -> Dataset:
    """Download CIFAR-100 into `folder`, unless it is there already, and read it.

    The Hub's parquet files are converted to the binary version, which is read ten times as fast; the archive of the
    home page is unpacked. Raises UserError if the directory cannot be written or holds another dataset, or if all
    sources fail.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock = FileLock(folder / ".fetch.lock")
        with lock:  # a second process waits here, and then finds the dataset
            placed = existing_dataset(folder)
            if placed is None:
                _demand_no_parts(folder)
                return _try_sources(folder, folder / ".fetch", say)
            if placed.spec is not CIFAR100 or not placed.is_verified:
                raise UserError("download.other_dataset", f"There is another dataset in {folder} already: {placed}.")
            say(f"Already downloaded: {placed}")
            return placed
    except OSError as error:
        raise UserError("download.unwritable", f"{folder} cannot be written ({error.strerror or error}).") from None


def _demand_no_parts(folder: Path) -> None:
    """Raise UserError if a directory that the download would write holds something else."""
    for name in ("cifar-100-python", "cifar-100-binary"):
        if (folder / name).is_dir() and any((folder / name).iterdir()):
            raise UserError(
                "download.incomplete", f"{folder / name} is there, but not complete: move it away, and try again."
            )


def existing_dataset(folder: Path) -> Dataset | None:
    """The dataset, or its archive, that is in this directory already; None if there is none."""
    directory = on_disk(folder)
    read = official.find(directory) or official.find_archive(directory)
    return None if read is None else read()


def _try_sources(folder: Path, work: Path, say: Say) -> Dataset:
    work.mkdir(exist_ok=True)
    sources: list[tuple[str, Callable[[], Path]]] = [("the Hugging Face hub", lambda: _from_hub(work))]
    sources += [(home, lambda home=home: _from_home(home, work, say)) for home in HOMES]
    failures = []
    for name, source in sources:
        say(f"Downloading CIFAR-100 from {name}")
        try:
            made = source()
        except _SourceFailed as error:
            failures.append(f"{name}: {error}")
            say(f"  {error}")
            continue
        made.replace(folder / made.name)
        shutil.rmtree(work, ignore_errors=True)
        dataset = existing_dataset(folder)
        assert dataset is not None
        say(f"  {dataset}")
        return dataset
    raise UserError(
        "download.failed",
        "CIFAR-100 could not be downloaded. " + " ".join(f"From {failure}." for failure in failures),
    )


def _from_hub(work: Path) -> Path:
    """The files of the Hub, verified and converted to the binary version."""
    try:
        from huggingface_hub import hf_hub_download
        from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError
    except ImportError:
        raise _SourceFailed("needs huggingface_hub and pyarrow: pip install 'cifar100[hub]'") from None
    endpoint = os.environ.get("HF_ENDPOINT", HUB)
    _check_reachable(endpoint)
    try:
        for name in HUB_FILES:
            hf_hub_download(
                HUB_REPOSITORY,
                name,
                repo_type="dataset",
                revision=HUB_REVISION,
                local_dir=work / "hub",
                endpoint=endpoint,
            )
    except LocalEntryNotFoundError:
        raise _SourceFailed("cannot be reached") from None
    except HfHubHTTPError as error:
        raise _SourceFailed(f"answered {error.response.status_code}") from None
    except Exception as error:  # the library passes on whatever its HTTP client raises
        raise _SourceFailed(f"the download failed ({type(error).__name__})") from None
    read = parquet.find(work / "hub")
    try:
        dataset = read() if read else None
    except UserError:
        dataset = None
    if dataset is None or not dataset.is_verified:
        shutil.rmtree(work / "hub", ignore_errors=True)
        raise _SourceFailed("its files are not CIFAR-100, and were deleted")
    return binary.write(dataset, work)


def _check_reachable(address: str) -> None:
    """Raise _SourceFailed if there is no answer at all: huggingface_hub would try for half a minute."""
    try:
        urllib.request.urlopen(urllib.request.Request(address, method="HEAD"), timeout=TIMEOUT).close()
    except urllib.error.HTTPError as error:
        error.close()  # any answer will do
    except (OSError, HTTPException, ValueError):  # ValueError: HF_ENDPOINT is not a URL
        raise _SourceFailed("cannot be reached") from None


def _from_home(home: str, work: Path, say: Say) -> Path:
    """The archive of the home page, verified by its MD5, unpacked."""
    part = work / ARCHIVE
    _download(home + ARCHIVE, part, say)
    with part.open("rb") as file:
        digest = hashlib.file_digest(file, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()
    if digest != ARCHIVE_MD5:
        part.unlink()
        raise _SourceFailed(f"its archive has MD5 {digest}, not {ARCHIVE_MD5}, and was deleted")
    unpacked, content = work / pickles.FORMATS[0].folder, open_archive(part)
    assert content is not None
    unpacked.mkdir(exist_ok=True)
    for name, file in content.directories[unpacked.name].listing.files.items():
        (unpacked / name).write_bytes(read_published(file))
    return unpacked


def _download(url: str, part: Path, say: Say) -> None:
    """Fill `part` from a URL, resuming from what it holds. Raises _SourceFailed if all attempts fail."""
    reason = ""
    for attempt in range(ATTEMPTS):
        time.sleep(attempt * RETRY_SECONDS)
        size = part.stat().st_size if part.exists() else 0
        request = urllib.request.Request(url, headers={"Range": f"bytes={size}-"} if size else {})
        try:
            with urllib.request.urlopen(request, timeout=TIMEOUT) as response:
                resumed = response.status == 206  # a server without range requests starts over
                size = size if resumed else 0
                total = size + int(response.headers.get("Content-Length") or 0)
                if total > MAX_ARCHIVE_BYTES:
                    raise _SourceFailed(f"it announces {total:,} bytes; the archive is smaller")
                with (
                    part.open("ab" if resumed else "wb") as file,
                    progress(f"{part.name}, MiB", total >> 20, say) as advance,
                ):
                    advance(size >> 20)
                    while chunk := response.read(1 << 20):
                        file.write(chunk)
                        size += len(chunk)
                        advance(1)
                        if size > MAX_ARCHIVE_BYTES:
                            raise _SourceFailed("it sends more bytes than the archive has")
            if size >= total:
                return
            reason = f"the connection closed after {size:,} of {total:,} bytes"
        except urllib.error.HTTPError as error:
            error.close()
            if error.code == 416:  # the part is complete, or too long: the MD5 decides
                return
            if error.code < 500:
                raise _SourceFailed(f"answered {error.code}") from None
            reason = f"answered {error.code}"
        except (OSError, HTTPException, ValueError) as error:  # OSError: of the network, or of a full disk
            text = getattr(error, "reason", None) or getattr(error, "strerror", None) or type(error).__name__
            reason = f"the download failed ({text})"
    raise _SourceFailed(f"gave up after {ATTEMPTS} attempts: {reason}")
