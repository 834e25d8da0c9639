"""Models on the Hugging Face hub: fetched by an address like hf://user/model, and put there.

Only safetensors with their JSON, or ONNX in one file, are fetched, whatever else a repository holds: neither carries
code. Their sizes are looked at first, and what is in them when they are opened. What was fetched stays in the library's
cache and serves when there is no network.
"""

from __future__ import annotations

import os
import re
from pathlib import Path

from cifar100.support.errors import RunFailed, UserError

HUB = "https://huggingface.co"
WEIGHTS, GRAPH = "model.safetensors", "model.onnx"
"""What a repository's files are called; of both, the weights are taken where the address names none."""

LARGEST = {".safetensors": 1 << 29, ".onnx": 1 << 29, ".json": 10_000_000}
"""Bytes of a file of each kind, at most."""

ADDRESS = re.compile(r"hf:/+([\w.-]+/[\w.-]+)(?:@([\w.-]+))?(?:/([\w.-]+\.(?:safetensors|onnx)))?")
"""hf://user/model, hf://user/model@revision, hf://user/model/FILE; a Path makes one slash of two."""


class _Missing(Exception):
    """There is no such file in the repository."""


def is_hub_address(path: str | Path) -> bool:
    """Whether this names a model on the hub rather than a file."""
    return str(path).startswith("hf:/")


def pull(address: str | Path) -> Path:
    """The local path of a model on the hub, fetched unless it is in the cache already and the hub has no newer one.

    Raises UserError where the address is none, there is no such model or nothing in it that can be opened safely,
    it is too large, or the hub cannot be reached and nothing was fetched before.
    """
    match = ADDRESS.fullmatch(str(address))
    if match is None:
        raise UserError(
            f"{address} is no model on the hub: an address is hf://user/model, with @revision or "
            "/FILE.safetensors or /FILE.onnx after it where wanted."
        )
    repository, revision, file = match.groups()
    missing = ""
    for name in (file,) if file else (WEIGHTS, GRAPH):
        try:
            path = _fetch(repository, revision, name)
            if path.suffix == ".safetensors":
                _fetch(repository, revision, str(Path(name).with_suffix(".json")))
        except _Missing as error:
            missing = str(error)
            continue
        return path
    wanted = missing if file else f"{WEIGHTS} with its JSON, nor {GRAPH}"
    raise UserError(f"{repository} on the hub holds no {wanted}: nothing else is opened.")


def _fetch(repository: str, revision: str | None, name: str) -> Path:
    """One file, its size looked at before. Raises _Missing where the repository has none of that name."""
    try:
        from huggingface_hub import get_hf_file_metadata, hf_hub_download, hf_hub_url
        from huggingface_hub.errors import (
            EntryNotFoundError,
            HfHubHTTPError,
            HFValidationError,
            LocalEntryNotFoundError,
            RepositoryNotFoundError,
            RevisionNotFoundError,
        )
    except ImportError:
        raise _library_missing() from None
    endpoint, offline = os.environ.get("HF_ENDPOINT", HUB), False
    try:
        try:
            url = hf_hub_url(repository, name, revision=revision, endpoint=endpoint)
            size = get_hf_file_metadata(url, endpoint=endpoint).size
            if size is None or size > LARGEST[Path(name).suffix]:
                raise UserError(f"{name} of {repository} is not fetched: {size or 'unknown':,} bytes are too many.")
        except (UserError, HFValidationError, HfHubHTTPError, EntryNotFoundError):
            raise
        except Exception:  # whatever the HTTP client raises where nobody answers; the cache may still have it
            offline = True
        return Path(hf_hub_download(repository, name, revision=revision, endpoint=endpoint, local_files_only=offline))
    except LocalEntryNotFoundError:
        raise UserError(
            f"The hub cannot be reached, and {name} of {repository} was not fetched before: load a local file."
        ) from None
    except EntryNotFoundError:
        raise _Missing(name) from None
    except RevisionNotFoundError:
        raise UserError(f"{repository} on the hub has no revision {revision}.") from None
    except RepositoryNotFoundError:
        raise UserError(
            f"There is no model {repository} on the hub, or it is private: log in with `hf auth login`."
        ) from None
    except HFValidationError:
        raise UserError(f"{repository} is no name of a model on the hub.") from None
    except HfHubHTTPError as error:
        raise UserError(f"The hub answered {error.response.status_code} for {name} of {repository}.") from None
    except OSError as error:
        raise UserError(
            f"{name} of {repository} could not be fetched ({error.strerror or type(error).__name__})."
        ) from None


def upload(folder: Path, repository: str, *, private: bool = False) -> str:
    """Put the files of a folder on the hub, as one commit to user/model, which is made if need be; its address there.

    Raises UserError where nobody is logged in or may not write there, RunFailed where the hub fails.
    """
    try:
        from huggingface_hub import HfApi, get_token
        from huggingface_hub.errors import HfHubHTTPError, HFValidationError
    except ImportError:
        raise _library_missing() from None
    if get_token() is None:
        raise UserError("Nobody is logged in to the hub: run `hf auth login`, or set $HF_TOKEN.")
    api = HfApi(endpoint=os.environ.get("HF_ENDPOINT", HUB))
    try:
        url = api.create_repo(repository, private=private, exist_ok=True)
        api.upload_folder(repo_id=repository, folder_path=folder, commit_message="Weights of cifar100")
    except HFValidationError:
        raise UserError(f"{repository} is no name of a model on the hub: it must be user/model.") from None
    except HfHubHTTPError as error:
        code = error.response.status_code
        if code in (401, 403):
            raise UserError(f"The hub does not let this login write to {repository} ({code}).") from None
        raise RunFailed(f"The hub answered {code}; {repository} may be incomplete: push it again.") from None
    except Exception as error:  # whatever the HTTP client raises where nobody answers
        raise RunFailed(f"The hub cannot be reached ({type(error).__name__}); nothing was pushed.") from None
    return str(url)


def _library_missing() -> UserError:
    return UserError("Models on the hub need huggingface_hub: pip install 'cifar100[hub]'.")
