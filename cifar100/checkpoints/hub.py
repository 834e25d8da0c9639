"""Download and upload of models on the Hugging Face Hub, with addresses like hf://user/model.

Only safetensors with their JSON, or ONNX in one file, are downloaded, which contain no code. Sizes are checked before,
contents when a file is opened. Downloaded files stay in the library's cache, which is used without a network.
"""

from __future__ import annotations

import os
import re
from contextlib import suppress
from pathlib import Path

from cifar100.support.errors import RunFailed, UserError

HUB = "https://huggingface.co"
WEIGHTS, GRAPH = "model.safetensors", "model.onnx"
"""The files of a repository; the weights are preferred if the address names no file."""

MAX_BYTES = {".safetensors": 1 << 29, ".onnx": 1 << 29, ".json": 10_000_000}
"""Maximum size of a file of each kind."""

GENERATED = ["onnx/model.onnx", "onnx/model_quantized.onnx", "config.json", "preprocessor_config.json"]
"""Files of a pushed model beside `WEIGHTS` that are not always written: an earlier model's are deleted."""

ADDRESS = re.compile(r"hf:/+([\w.-]+/[\w.-]+)(?:@([\w.-]+))?(?:/([\w.-]+\.(?:safetensors|onnx)))?")
"""hf://user/model, hf://user/model@revision, hf://user/model/FILE; a Path makes one slash of two."""


class _Missing(Exception):
    """The repository has no such file."""


def is_hub_address(path: str | Path) -> bool:
    """Whether this names a model on the hub rather than a file."""
    return _address(path).startswith("hf:/")


def _address(path: str | Path) -> str:
    """The address as text; a Path of Windows makes backslashes of its slashes."""
    return str(path).replace("\\", "/")


def download_model(address: str | Path) -> Path:
    """The local path of a model on the Hub, downloaded unless the cache has the newest version.

    Raises UserError if the address is invalid, there is no such model, nothing in it can be opened safely, it is too
    large, or the Hub cannot be reached and the cache does not have it.
    """
    match = ADDRESS.fullmatch(_address(address))
    if match is None:
        raise UserError(
            "hub.address",
            f"{address} is not an address of a model on the Hub: give hf://user/model, optionally with @revision, "
            "/FILE.safetensors or /FILE.onnx.",
        )
    repository, revision, file = match.groups()
    offline = None
    for name in (file,) if file else (WEIGHTS, GRAPH):
        try:
            path = _fetch(repository, revision, name)
        except _Missing:
            continue
        except UserError as error:
            if error.code != "hub.offline":
                raise
            offline = offline or error  # the cache may have the other file
            continue
        if path.suffix == ".safetensors":
            with suppress(_Missing):  # third-party weights have no metadata
                _fetch(repository, revision, str(Path(name).with_suffix(".json")))
        return path
    if offline is not None:
        raise offline
    wanted = file or f"{WEIGHTS}, nor {GRAPH}"
    raise UserError("hub.no_weights", f"{repository} on the Hub has no {wanted}; other files are not opened.")


def _fetch(repository: str, revision: str | None, name: str) -> Path:
    """Download one file after a check of its size. Raises _Missing if the repository does not have it."""
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
            if size is None or size > MAX_BYTES[Path(name).suffix]:
                reason = "its size is unknown" if size is None else f"{size:,} bytes are too many"
                message = f"{name} of {repository} was not downloaded: {reason}."
                raise UserError("hub.size", message)
        except (UserError, HFValidationError, HfHubHTTPError, EntryNotFoundError):
            raise
        except Exception:  # any error of the HTTP client: the cache may have the file
            offline = True
        return Path(hf_hub_download(repository, name, revision=revision, endpoint=endpoint, local_files_only=offline))
    except LocalEntryNotFoundError:
        message = f"The Hub cannot be reached, and {name} of {repository} is not in the cache: load a local file."
        raise UserError("hub.offline", message) from None
    except EntryNotFoundError:
        raise _Missing(name) from None
    except RevisionNotFoundError:
        raise UserError("hub.revision", f"{repository} on the Hub has no revision {revision}.") from None
    except RepositoryNotFoundError:
        message = f"There is no model {repository} on the Hub, or it is private: log in with `hf auth login`."
        raise UserError("hub.not_found", message) from None
    except HFValidationError:
        raise UserError("hub.name", f"{repository} is not a valid name of a model on the Hub.") from None
    except HfHubHTTPError as error:
        message = f"The Hub responded with {error.response.status_code} for {name} of {repository}."
        raise UserError("hub.response", message) from None
    except OSError as error:
        reason = error.strerror or type(error).__name__
        raise UserError("hub.download", f"{name} of {repository} could not be downloaded ({reason}).") from None


def upload_model(folder: Path, repository: str, *, private: bool = False) -> str:
    """Upload the files of a directory in one commit to user/model, which is created if necessary; returns the URL.

    Raises UserError without a login or permission to write, RunFailed if the Hub fails.
    """
    try:
        from huggingface_hub import HfApi, get_token
        from huggingface_hub.errors import HfHubHTTPError, HFValidationError
    except ImportError:
        raise _library_missing() from None
    if get_token() is None:
        raise UserError("hub.login", "Not logged in to the Hub: run `hf auth login`, or set $HF_TOKEN.")
    api = HfApi(endpoint=os.environ.get("HF_ENDPOINT", HUB))
    try:
        url = api.create_repo(repository, private=private, exist_ok=True)
        if private and not api.repo_info(repository).private:
            raise UserError("hub.public", f"{repository} exists and is public; --private does not change that.")
        api.upload_folder(
            repo_id=repository,
            folder_path=folder,
            commit_message="Weights of cifar100",
            delete_patterns=GENERATED,  # does not affect the files that are uploaded
        )
    except HFValidationError:
        message = f"{repository} is not a valid name of a model on the Hub: it must be user/model."
        raise UserError("hub.name", message) from None
    except HfHubHTTPError as error:
        code = error.response.status_code
        if code in (401, 403):
            raise UserError("hub.permission", f"This login may not write to {repository} ({code}).") from None
        message = f"The Hub responded with {code}; {repository} may be incomplete: push again."
        raise RunFailed("hub.response", message) from None
    except UserError:
        raise
    except Exception as error:  # any error of the HTTP client
        message = f"The Hub cannot be reached ({type(error).__name__}); nothing was uploaded."
        raise RunFailed("hub.offline", message) from None
    return str(url)


def _library_missing() -> UserError:
    return UserError("hub.not_installed", "Models on the Hub need huggingface_hub: pip install 'cifar100[hub]'.")
