"""Downloads CIFAR-100: from the Hugging Face hub, or from its home page. Nothing is placed before it is proven.

What is under way lies in a hidden folder beside the target, so that a download that broke off goes on where it was;
the finished dataset is moved into place at once.
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

from cifar100.dataset import archive, binary, parquet, pickles
from cifar100.dataset.base import Dataset
from cifar100.dataset.published import CIFAR100
from cifar100.support.errors import RunFailed, UserError
from cifar100.support.terminal import emit

HUB = "https://huggingface.co"
HUB_REPOSITORY = "uoft-cs/cifar100"
HUB_REVISION = "aadb3af77e9048adbea6b47c21a81e47dd092ae5"
HUB_FILES = ("cifar100/train-00000-of-00001.parquet", "cifar100/test-00000-of-00001.parquet")

HOMES = ("https://www.cs.toronto.edu/~kriz/", "https://cave.cs.toronto.edu/kriz/")
ARCHIVE = pickles.LAYOUTS[0].archive
ARCHIVE_MD5 = "eb9058c3a382ffc7106e4002c42a8d85"
LARGEST_ARCHIVE = 1 << 28  # bytes; the real one has 161 MiB

ATTEMPTS = 5
"""Tries at one address; what arrived before is kept from one to the next."""
TIMEOUT = 20.0
"""Seconds without a byte after which a connection counts as stalled."""

Say = Callable[[str], None]


class _SourceFailed(Exception):
    """One source could not give the dataset; the next is asked."""


def fetch(folder: Path, say: Say = emit) -> Dataset:
    """Download CIFAR-100 into `folder`, unless it is there already, and read it.

    The hub's parquet files are placed as the binary version, which is read ten times as fast; the home page's archive
    as it is. Raises UserError where the folder cannot be written or holds another dataset, or no source gives the real
    one.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock = FileLock(folder / ".fetch.lock")
        with lock:  # a second process waits here, and then finds the dataset
            placed = existing_dataset(folder)
            if placed is None:
                return _fetch(folder, folder / ".fetch", say)
            if placed.published is not CIFAR100 or not placed.is_verified:
                raise UserError(f"There is another dataset in {folder} already: {placed}.")
            say(f"It is there already. {placed}")
            return placed
    except OSError as error:
        raise UserError(f"{folder} cannot be written ({error.strerror or error}).") from None


def existing_dataset(folder: Path) -> Dataset | None:
    """What an earlier `fetch` placed in this folder, or the user an archive; None where there is nothing."""
    for reader in (binary, pickles, archive):
        found = reader.find(folder)
        if found is not None:
            return reader.read(*found)
    return None


def _fetch(folder: Path, work: Path, say: Say) -> Dataset:
    work.mkdir(exist_ok=True)
    sources: list[tuple[str, Callable[[], Path]]] = [("the Hugging Face hub", lambda: _from_hub(work))]
    sources += [(home, lambda home=home: _from_home(home, work, say)) for home in HOMES]
    failures = []
    for name, source in sources:
        say(f"Fetching CIFAR-100 from {name}")
        try:
            made = source()
        except _SourceFailed as error:
            failures.append(f"{name}: {error}")
            say(f"  {error}")
            continue
        made.replace(folder / made.name)
        shutil.rmtree(work, ignore_errors=True)
        dataset = existing_dataset(folder)
        if dataset is None:
            raise RunFailed(f"{folder / made.name} was placed and is gone.")
        say(f"  {dataset}")
        return dataset
    raise UserError("CIFAR-100 could not be fetched. " + " ".join(f"From {failure}." for failure in failures))


def _from_hub(work: Path) -> Path:
    """The hub's files, proven by their content and rewritten as the binary version."""
    try:
        from huggingface_hub import hf_hub_download
        from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError
    except ImportError:
        raise _SourceFailed("needs huggingface_hub and pyarrow: pip install 'cifar100[hub]'") from None
    endpoint = os.environ.get("HF_ENDPOINT", HUB)
    _knock(endpoint)
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
        raise _SourceFailed(f"the download broke off ({type(error).__name__})") from None
    found = parquet.find(work / "hub")
    try:
        dataset = parquet.read(*found) if found else None
    except UserError:
        dataset = None
    if dataset is None or not dataset.is_verified:
        shutil.rmtree(work / "hub", ignore_errors=True)
        raise _SourceFailed("what it gave is not CIFAR-100, and was thrown away")
    return binary.write(dataset, work)


def _knock(address: str) -> None:
    """Raise _SourceFailed where nobody answers at all: the hub's library would try for half a minute."""
    try:
        urllib.request.urlopen(urllib.request.Request(address, method="HEAD"), timeout=TIMEOUT).close()
    except urllib.error.HTTPError as error:
        error.close()  # an answer, whatever it says
    except (OSError, HTTPException, ValueError):  # ValueError: HF_ENDPOINT is no address
        raise _SourceFailed("cannot be reached") from None


def _from_home(home: str, work: Path, say: Say) -> Path:
    """The home page's archive, proven by its MD5, unpacked."""
    part = work / ARCHIVE
    _download(home + ARCHIVE, part, say)
    with part.open("rb") as file:
        digest = hashlib.file_digest(file, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()
    if digest != ARCHIVE_MD5:
        part.unlink()
        raise _SourceFailed(f"its archive has MD5 {digest}, not {ARCHIVE_MD5}, and was thrown away")
    layout = pickles.LAYOUTS[0]
    (work / layout.folder).mkdir(exist_ok=True)
    for name, content in archive.read_members(part, layout.members).items():
        (work / name).write_bytes(content)
    return work / layout.folder


def _download(url: str, part: Path, say: Say) -> None:
    """Fill `part` from a URL, going on from what it holds; several tries. Raises _SourceFailed where all fail."""
    reason = "nothing arrived"
    for attempt in range(ATTEMPTS):
        have = part.stat().st_size if part.exists() else 0
        request = urllib.request.Request(url, headers={"Range": f"bytes={have}-"} if have else {})
        try:
            with urllib.request.urlopen(request, timeout=TIMEOUT) as response:
                if response.status != 206:  # a server that does not know ranges starts over
                    have = 0
                total = have + int(response.headers.get("Content-Length") or 0)
                if total > LARGEST_ARCHIVE:
                    raise _SourceFailed(f"it announces {total:,} bytes; the archive is smaller")
                tell = _teller(part.name, have, total, say)
                with part.open("ab" if have else "wb") as file:
                    while chunk := response.read(1 << 16):
                        file.write(chunk)
                        have += len(chunk)
                        if have > LARGEST_ARCHIVE:
                            raise _SourceFailed("it sends more bytes than the archive has")
                        tell(have)
            if have >= total:
                return
            reason = f"the connection closed after {have:,} of {total:,} bytes"
        except urllib.error.HTTPError as error:
            error.close()
            if error.code == 416:  # the part is as long as the file, or longer: let its MD5 tell
                return
            if error.code < 500:
                raise _SourceFailed(f"answered {error.code}") from None
            reason = f"answered {error.code}"
        except (urllib.error.URLError, HTTPException, TimeoutError, ConnectionError, ValueError) as error:
            reason = f"the connection failed ({getattr(error, 'reason', None) or type(error).__name__})"
        time.sleep(min(4.0, 0.2 * 2**attempt) if attempt + 1 < ATTEMPTS else 0)
    raise _SourceFailed(f"gave up after {ATTEMPTS} tries: {reason}")


def _teller(name: str, have: int, total: int, say: Say) -> Callable[[int], None]:
    """A function that tells how far a download is, at most every five seconds: share, speed and time left."""
    began, first, last = time.monotonic(), have, time.monotonic()

    def tell(done: int) -> None:
        nonlocal last
        now = time.monotonic()
        if now - last < 5:
            return
        last = now
        speed = (done - first) / (now - began)
        left = f", {(total - done) / speed:,.0f} s left" if total and speed else ""
        share = f"{done / total:4.0%} of {total / 2**20:,.0f} MiB" if total else f"{done / 2**20:,.0f} MiB"
        say(f"  {name}: {share}, {speed / 2**20:.2f} MiB/s{left}")

    return tell
