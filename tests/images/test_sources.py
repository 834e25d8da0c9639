"""images/sources.py and download.py: input arguments of `predict`, prefetching, and downloads of image URLs."""

from __future__ import annotations

import io
import os
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest
from conftest import assert_one_sentence
from image_bytes import image_bytes, png_with_declared_size
from PIL import Image

from cifar100.images import download, sources
from cifar100.images.download import download_image
from cifar100.images.fit import FITS
from cifar100.images.sources import ImageSource, expand_inputs, load_images
from cifar100.support.errors import UserError


def draw(path: Path, value: int = 0, size: tuple[int, int] = (40, 32)) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("L", size, value).save(path)
    return path


def names(*words: str | Path) -> list[str]:
    found = expand_inputs(words)
    assert not any(source.problem for source in found), found
    return [source.name for source in found]


# Input arguments


@pytest.fixture
def photos(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """photos/10.png, 2.png and deep/er/a.JPG, among files that must be ignored."""
    monkeypatch.chdir(tmp_path)
    for name in ("10.png", "2.png", "deep/er/a.jpg", ".hidden.png", ".git/b.png", "__MACOSX/c.png"):
        draw(Path("photos", name))
    Path("photos/deep/er/a.jpg").rename("photos/deep/er/a.JPG")
    Path("photos/notes.txt").write_text("no image")
    os.mkfifo("photos/pipe.png")
    Path("photos/loop").symlink_to(".")
    return Path("photos")


def test_a_folder_is_expanded_in_natural_order(photos: Path) -> None:
    assert names(photos) == ["photos/2.png", "photos/10.png", "photos/deep/er/a.JPG"]


def test_skipped_files_of_a_folder_are_counted(photos: Path) -> None:
    for name in ("a.txt", "raw", ".hidden.txt"):
        (photos / "deep" / name).write_text("no image")
    reason: list[str] = []
    expand_inputs([photos / "deep", "photos/*.png"], reason.append)
    assert len(reason) == 1
    for figure in ("2 files", "1 .txt", "1 without suffix"):
        assert figure in reason[0]
    expand_inputs([photos / "2.png"], reason.append)
    assert len(reason) == 1


def test_a_folder_of_files_without_suffix_is_reported_with_a_hint(tmp_path: Path) -> None:
    for number in range(3):
        draw(tmp_path / f"{number}.png").rename(tmp_path / f"{number}")
    (source,) = expand_inputs([tmp_path])
    assert_one_sentence(source.problem, tmp_path, "3 files", ".jpg")


def test_a_folder_is_searched_for_every_image_format(tmp_path: Path) -> None:
    for suffix in ("jp2", "tga", "ico", "jpg"):
        Image.new("RGB", (32, 32), "red").save(tmp_path / f"a.{suffix}")
    (tmp_path / "IMG_1.HEIC").write_bytes(b"\0\0\0\x18ftypheic" + bytes(50))
    loaded = list(load_images(expand_inputs([tmp_path]), 32))
    assert [Path(image.name).name for image in loaded if image.problem] == ["IMG_1.HEIC"]
    assert len(loaded) == 5
    assert "save it as JPEG" in next(image.problem for image in loaded if image.problem)


def test_arguments_keep_their_order(photos: Path) -> None:
    assert names("photos/10.png", "photos/deep", "photos/2.png", "-", "http://127.0.0.1/x") == [
        *("photos/10.png", "photos/deep/er/a.JPG", "photos/2.png", "-", "http://127.0.0.1/x")
    ]


@pytest.mark.parametrize(
    ("pattern", "expected"),
    [
        ("photos/*.png", ["photos/2.png", "photos/10.png"]),
        ("photos/?.png", ["photos/2.png"]),
        ("photos/**/*.JPG", ["photos/deep/er/a.JPG"]),
        ("photos/d*", ["photos/deep/er/a.JPG"]),
        ("photos/../photos/?.png", ["photos/../photos/2.png"]),
    ],
)
def test_glob_patterns(photos: Path, pattern: str, expected: list[str]) -> None:
    os.unlink("photos/pipe.png")
    assert names(pattern) == expected


def test_an_existing_file_name_with_brackets_is_not_a_pattern(photos: Path) -> None:
    draw(Path("photo[1].png"))
    assert names("photo[1].png") == ["photo[1].png"]


@pytest.mark.parametrize(
    ("word", "reason"),
    [
        ("none*.png", "No image matches none*.png."),
        ("empty", "empty is a directory without images."),
        ("\x1b[31m*", "No image matches \x1b[31m*."),
    ],
)
def test_arguments_without_images_are_reported(photos: Path, word: str, reason: str) -> None:
    Path("empty").mkdir()
    assert [source.problem for source in expand_inputs([word])] == [reason]


def test_an_unreadable_folder_is_reported_and_the_others_are_read(
    photos: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    scandir = os.scandir

    def refusing(place: str) -> object:
        if str(place).endswith("deep"):
            raise PermissionError(13, "Permission denied", place)
        return scandir(place)

    monkeypatch.setattr(os, "scandir", refusing)
    assert expand_inputs([photos]) == [
        *(ImageSource("photos/2.png"), ImageSource("photos/10.png")),
        ImageSource("photos/deep", "photos/deep cannot be read (Permission denied)."),
    ]


# Reading


def test_images_and_problems_keep_their_order(tmp_path: Path) -> None:
    paths = [draw(tmp_path / f"{i}.png", i) for i in range(30)]
    paths[7].write_text("text")
    paths[20].unlink()
    loaded = list(load_images(expand_inputs(paths), 32))
    assert [image.name for image in loaded] == [str(path) for path in paths]
    for value, image in enumerate(loaded):
        if value in (7, 20):
            assert image.pixels is None
            assert_one_sentence(image.problem, paths[value].name)
        else:
            assert image.pixels is not None
            assert image.pixels.shape == (32, 32, 3)
            assert (image.pixels == value).all()
            assert not image.problem


def test_previews_are_made_for_the_first_images_only(tmp_path: Path) -> None:
    paths = [draw(tmp_path / f"{i}.png", i) for i in range(4)]
    loaded = list(load_images(expand_inputs(paths), 32, num_previews=2, preview_size=64))
    assert [None if image.preview is None else image.preview.shape for image in loaded] == [(64, 64, 3)] * 2 + [
        None
    ] * 2


def test_the_fraction_of_an_image_that_the_crop_keeps(tmp_path: Path) -> None:
    Image.new("RGB", (200, 50)).save(tmp_path / "wide.png")
    fractions = {
        fit: [image.visible_fraction for image in load_images(expand_inputs([tmp_path]), 32, fit)] for fit in FITS
    }
    assert fractions == {"crop": [0.25], "pad": [1.0], "stretch": [1.0]}


def test_prefetching_is_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sources, "PREFETCH", 8)
    monkeypatch.setattr(sources, "SMALL_FILE_BYTES", -1)  # smaller files are decoded one by one, when needed
    begun = []
    decode = sources.to_rgb
    monkeypatch.setattr(sources, "to_rgb", lambda image, **words: (begun.append(image), decode(image, **words))[1])
    path = str(draw(tmp_path / "a.png"))
    stream = load_images([ImageSource(path)] * 100, 32)
    for taken in range(1, 40):
        next(stream)
        assert len(begun) <= taken + 8
    del stream  # closes the generator
    time.sleep(0.05)
    assert len(begun) <= 39 + 8


def test_standard_input(monkeypatch: pytest.MonkeyPatch) -> None:
    content = image_bytes(Image.new("L", (32, 32), 9))
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(content)))
    first, second = load_images(expand_inputs(["-", "-"]), 32)
    assert first.pixels is not None
    assert (first.pixels == 9).all()
    assert second.problem == "Standard input can be read only once."
    assert expand_inputs([""])[0].problem == "An argument is empty: name an image."


def test_text_on_standard_input_is_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(b"cat.png\n")))
    assert next(load_images(expand_inputs(["-"]), 32)).problem == "standard input is not an image that can be read."


# URLs


PNG = image_bytes(Image.new("RGB", (32, 32), (1, 2, 3)))
NOTHING = {"Content-Length": "0"}


class Site(BaseHTTPRequestHandler):
    """/image serves an image, /hop/N redirects N times to the image, and the other paths are faults of a server."""

    def do_GET(self) -> None:
        word, _, number = self.path[1:].partition("/")
        if word == "hop" and int(number):
            return self.answer(302, b"", {"Location": f"/hop/{int(number) - 1}", **NOTHING})
        if word == "loop":
            return self.answer(301, b"", {"Location": "/loop", **NOTHING})
        if word == "file":
            return self.answer(302, b"", {"Location": "file:///etc/passwd", **NOTHING})
        if word == "ftp":
            return self.answer(302, b"", {"Location": "ftp://127.0.0.1/a.png", **NOTHING})
        if word == "gone":
            return self.answer(404, b"")
        if word == "page":
            return self.answer(200, b"<html>", {"Content-Type": "text/html"})
        if word == "declared_size":
            return self.answer(200, b"", {"Content-Length": "20000001"})
        if word == "endless":
            self.answer(200, b"", {})
            chunk = bytes(1 << 20)
            try:
                for _ in range(40):
                    self.wfile.write(chunk)
                    self.server.mebibytes_sent += 1  # type: ignore[attr-defined]
            except OSError:
                pass
            return None
        if word == "slow":
            self.answer(200, b"", {})
            try:
                for byte in PNG:
                    self.wfile.write(bytes([byte]))
                    time.sleep(0.1)
            except OSError:
                pass
            return None
        if word == "nonsense":
            self.wfile.write(b"not http at all\r\n\r\n")
            return None
        if word == "bomb":
            return self.answer(200, png_with_declared_size(12_000, 12_000))
        self.server.agents.append(self.headers["User-Agent"])  # type: ignore[attr-defined]
        return self.answer(200, PNG, {"Content-Type": "image/png"})

    def answer(self, code: int, body: bytes, headers: dict[str, str] | None = None) -> None:
        """Send a response; if `headers` is None, send Content-Length only."""
        self.send_response(code)
        headers = {"Content-Length": str(len(body))} if headers is None else headers
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *_: object) -> None:
        pass


@pytest.fixture(scope="module")
def server() -> Iterator[ThreadingHTTPServer]:
    with ThreadingHTTPServer(("127.0.0.1", 0), Site) as server:
        server.agents, server.mebibytes_sent = [], 0  # type: ignore[attr-defined]
        server.daemon_threads = True
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server
        server.shutdown()


@pytest.fixture
def at(server: ThreadingHTTPServer, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], str]:
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    return lambda path: f"http://127.0.0.1:{server.server_port}/{path}"


@pytest.mark.parametrize("path", ["image", "hop/3", "an image, ä.png#part"])
def test_an_image_is_read_from_its_url(at: Callable[[str], str], path: str) -> None:
    (image,) = load_images(expand_inputs([at(path)]), 32)
    assert image.pixels is not None
    assert (image.pixels == (1, 2, 3)).all()


def test_requests_have_a_user_agent(at: Callable[[str], str], server: ThreadingHTTPServer) -> None:
    download_image(at("image"))
    assert server.agents[-1].startswith("cifar100/")  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("path", "reason"),
    [
        ("hop/4", "redirected more than 3 times"),
        ("loop", "redirected more than 3 times, in a loop, or to another scheme"),
        ("file", "to another scheme"),
        ("ftp", "must be http or https, not ftp"),
        ("gone", "the server answered 404 (Not Found)"),
        ("page", "is a web page (text/html), not an image"),
        ("declared_size", "is larger than 20 MB"),
        ("nonsense", "the response is not valid HTTP"),
    ],
)
def test_failed_downloads_are_reported(at: Callable[[str], str], path: str, reason: str) -> None:
    with pytest.raises(UserError) as caught:
        download_image(at(path))
    assert_one_sentence(str(caught.value), at(path), reason)


def test_an_endless_response_is_aborted_after_20_mb(at: Callable[[str], str], server: ThreadingHTTPServer) -> None:
    with pytest.raises(UserError, match="is larger than 20 MB"):
        download_image(at("endless"))
    assert server.mebibytes_sent < 40  # type: ignore[attr-defined]


def test_a_slow_response_is_aborted(at: Callable[[str], str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(download, "SECONDS", 0.4)
    start = time.monotonic()
    with pytest.raises(UserError, match=r"was not downloaded within 0\.4 seconds"):
        download_image(at("slow"))
    assert time.monotonic() - start < 5  # the whole response would take 8 s, without a timeout of any read


def test_a_decompression_bomb_is_refused_before_decoding(at: Callable[[str], str]) -> None:
    (image,) = load_images(expand_inputs([at("bomb")]), 32)
    assert image.problem == f"{at('bomb')} has too many pixels: save it as a smaller JPEG or PNG."


@pytest.mark.parametrize(
    ("address", "reason"),
    [
        ("ftp://127.0.0.1/a.png", "must be http or https, not ftp"),
        ("file:///etc/passwd", "not file"),
        ("http://", "is not a valid URL"),
        ("http://name:secret@127.0.0.1/", "is not a valid URL"),
        ("http://127.0.0.1:99999/", "is not a valid URL"),
        ("http://127.0.0.1:1/", "cannot be downloaded (Connection refused)"),
    ],
)
def test_invalid_urls_are_refused(address: str, reason: str) -> None:
    with pytest.raises(UserError) as caught:
        download_image(address)
    assert_one_sentence(str(caught.value), reason)


def test_an_image_given_as_bytes() -> None:
    from cifar100.images.convert import to_model_input

    assert (to_model_input(PNG) == np.array([1, 2, 3])).all()
    with pytest.raises(UserError, match="the image is not an image that can be read"):
        to_model_input(b"text")
