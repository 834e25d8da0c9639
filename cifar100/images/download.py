"""Downloads one image: http or https, at most ten seconds, 20 MB and three redirects.

Addresses in the local network, such as a camera or a NAS, are allowed: this is for the command line only; the web app
does not accept URLs.
"""

from __future__ import annotations

import threading
import urllib.error
import urllib.request
from concurrent.futures import Future
from email.message import Message
from http.client import HTTPException, HTTPResponse
from typing import IO
from urllib.parse import quote, urlsplit, urlunsplit

from cifar100.support.errors import UserError
from cifar100.version import __version__

SECONDS = 10.0
"""Total time, including name resolution and redirects."""

MAX_BYTES = 20_000_000
MAX_REDIRECTS = 3

_HEADERS = {"User-Agent": f"cifar100/{__version__} (image classification from a command line)", "Accept": "image/*"}


def is_url(word: str) -> bool:
    """Whether an argument is a URL, of any scheme, rather than a path."""
    return "://" in word


def download_image(address: str) -> bytes:
    """The content at a URL. Raises UserError if it cannot be downloaded within the limits."""
    future = Future[bytes]()

    def attempt() -> None:
        try:
            future.set_result(_read(address))
        except Exception as error:
            future.set_exception(error)

    # Socket timeouts restart with every byte, and name resolution has none, so the time limit is enforced from here;
    # the thread is abandoned.
    threading.Thread(target=attempt, daemon=True).start()
    try:
        return future.result(SECONDS)
    except UserError as error:
        raise UserError(error.code, f"{address} {error}.") from None
    except Exception as error:
        raise UserError("image.download", f"{address} {_reason(error)}.") from None


def _read(address: str) -> bytes:
    opener = urllib.request.build_opener(_Redirects)
    request = urllib.request.Request(_quoted(address), headers=_HEADERS)
    with opener.open(request, timeout=SECONDS) as response:
        assert isinstance(response, HTTPResponse)
        kind = response.headers.get_content_type()
        if kind.startswith("text/") and "Content-Type" in response.headers:
            raise UserError("image.format", f"is a web page ({kind}), not an image: use the URL of the image itself")
        length = response.headers.get("Content-Length", "")
        if length.isdecimal() and int(length) > MAX_BYTES:
            raise UserError("image.too_large", _TOO_LARGE)
        content = response.read(MAX_BYTES + 1)
    if len(content) > MAX_BYTES:
        raise UserError("image.too_large", _TOO_LARGE)
    return content


_TOO_LARGE = f"is larger than {MAX_BYTES // 1_000_000} MB"


class _Redirects(urllib.request.HTTPRedirectHandler):
    max_redirections = MAX_REDIRECTS
    max_repeats = 1
    inf_msg = ""

    def redirect_request(  # noqa: PLR0917 (as the class above has it)
        self, req: urllib.request.Request, fp: IO[bytes], code: int, msg: str, headers: Message, newurl: str
    ) -> urllib.request.Request | None:
        _refuse_other_schemes(newurl)
        return super().redirect_request(req, fp, code, msg, headers, newurl)  # type: ignore[arg-type]


def _quoted(address: str) -> str:
    """A URL with spaces and non-ASCII characters encoded."""
    _refuse_other_schemes(address)
    parts = urlsplit(address)
    if not parts.hostname or "@" in parts.netloc or parts.port == 0:  # .port raises ValueError above 65535
        raise ValueError
    host = parts.netloc if parts.netloc.isascii() else parts.netloc.encode("idna").decode()
    kept = "%/:=&?~+!$,;'@()*"
    return urlunsplit((parts.scheme, host, quote(parts.path, safe=kept), quote(parts.query, safe=kept), ""))


def _refuse_other_schemes(address: str) -> None:
    scheme = urlsplit(address).scheme
    if scheme not in ("http", "https"):
        raise UserError("image.url", f"is not downloaded: the scheme must be http or https, not {scheme}")


def _reason(error: Exception) -> str:
    """The reason of a failure, as the predicate of a sentence whose subject is the URL."""
    if isinstance(error, urllib.error.HTTPError):
        if 300 <= error.code < 400:
            return f"was redirected more than {MAX_REDIRECTS} times, in a loop, or to another scheme"
        return f"cannot be downloaded: the server answered {error.code} ({error.reason})"
    if isinstance(error, urllib.error.URLError) and isinstance(error.reason, Exception):
        error = error.reason
    if isinstance(error, TimeoutError):
        return f"was not downloaded within {SECONDS:g} seconds"
    if isinstance(error, OSError):
        return f"cannot be downloaded ({error.strerror or error})"
    if isinstance(error, HTTPException):
        return f"cannot be downloaded: the response is not valid HTTP ({type(error).__name__})"
    if isinstance(error, ValueError):
        return "is not a valid URL"
    raise error
