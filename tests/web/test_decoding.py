"""Decoding of uploads in worker processes: identical pixels, and expensive images that do not delay others."""

from __future__ import annotations

import os
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest
from image_bytes import image_bytes, jpeg_with_scans
from PIL import Image

from cifar100.support.errors import UserError
from cifar100.web import decoding
from cifar100.web.decoding import DecoderPool, decode


@pytest.fixture(scope="module")
def pool() -> Iterator[DecoderPool]:
    with closing(DecoderPool()) as started:
        started.warm_up()
        yield started


JPEG = image_bytes(np.random.default_rng(0).integers(0, 256, (90, 120, 3), np.uint8), "JPEG")


def test_a_worker_decodes_the_same_pixels(pool: DecoderPool) -> None:
    expected, actual = decode(JPEG, "a.jpg", 32), pool(JPEG, "a.jpg", 32)
    np.testing.assert_array_equal(actual.pixels, expected.pixels)
    np.testing.assert_array_equal(actual.thumbnail, expected.thumbnail)
    assert actual.pixels.shape == (32, 32, 3)
    assert actual.thumbnail.shape == (144, 192, 3)


def test_a_crop_is_outlined_on_the_whole_image() -> None:
    content = image_bytes(Image.new("RGB", (400, 100), (200, 200, 200)))
    shown = decode(content, "wide.png", 32).thumbnail
    assert shown.shape == (48, 192, 3)
    expected = [90] * 72 + [255] * 2 + [200] * 44 + [255] * 2 + [90] * 72
    np.testing.assert_array_equal(shown[24, :, 0], expected)
    for fit in ("pad", "stretch"):
        assert decode(content, "wide.png", 32, fit).thumbnail.shape == (192, 192, 3)


def loaded_modules() -> set[str]:
    return set(sys.modules)


@pytest.mark.slow
def test_a_replaced_worker_has_imported_its_modules(pool: DecoderPool) -> None:
    """Its imports are done before its first image, so they do not count toward the time limit."""
    with pytest.raises(TimeoutError):
        pool._decode(pool._slow, 0.1, (jpeg_with_scans(3000, 60), "slow.jpg", 32, "crop"))
    content = image_bytes(Image.new("RGB", (9, 8)), "WEBP")
    before = pool._slow.schedule(loaded_modules).result()
    pool._decode(pool._slow, 60, (content, "a.webp", 32, "crop"))
    assert pool._slow.schedule(loaded_modules).result() == before


def test_an_error_of_a_worker_keeps_its_code_and_message(pool: DecoderPool) -> None:
    with pytest.raises(UserError) as here:
        decode(b"text", "a.jpg", 32)
    with pytest.raises(UserError) as there:
        pool(b"text", "a.jpg", 32)
    assert (there.value.code, str(there.value)) == (here.value.code, str(here.value))


@pytest.mark.slow
def test_expensive_images_time_out_and_do_not_delay_others(pool: DecoderPool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(decoding, "FAST_SECONDS", 0.3)
    monkeypatch.setattr(decoding, "SLOW_SECONDS", 0.5)
    monkeypatch.setattr(pool, "_slow_places", threading.BoundedSemaphore(2))
    codes: list[str] = []

    def attack() -> None:
        with pytest.raises(UserError) as error:
            pool(jpeg_with_scans(3000, 400), "a.jpg", 32)
        codes.append(error.value.code)

    attackers = [threading.Thread(target=attack) for _ in range(4)]
    for attacker in attackers:
        attacker.start()
    start = time.monotonic()
    assert pool(JPEG, "b.jpg", 32).pixels.shape == (32, 32, 3)
    assert time.monotonic() - start < 8, "two rounds of 0.3 s, and time to replace the workers on a busy machine"
    for attacker in attackers:
        attacker.join()
    assert set(codes) <= {"app.decode_time", "app.busy"}
    assert "app.decode_time" in codes
    assert pool(JPEG, "b.jpg", 32).pixels.shape == (32, 32, 3)


@pytest.mark.slow
def test_a_killed_worker_is_replaced(pool: DecoderPool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(decoding, "decode", _exit)
    with pytest.raises(UserError) as error:
        pool(JPEG, "a.jpg", 32)
    assert error.value.code == "app.decode_memory"
    monkeypatch.undo()
    assert pool(JPEG, "a.jpg", 32).pixels.shape == (32, 32, 3)


@pytest.mark.slow
def test_closing_ends_waiting_requests() -> None:
    """Otherwise their threads would keep the app's process from exiting."""
    codes: list[str] = []

    def attack() -> None:
        with pytest.raises(UserError) as error:
            pool(jpeg_with_scans(3000, 400), "a.jpg", 32)
        codes.append(error.value.code)

    attackers = [threading.Thread(target=attack, daemon=True) for _ in range(4)]
    with closing(DecoderPool()) as pool:
        pool.warm_up()
        for attacker in attackers:
            attacker.start()
        time.sleep(0.5)
    for attacker in attackers:
        attacker.join(timeout=20)
        assert not attacker.is_alive()
    assert "app.closed" in codes


def _exit(*_: object) -> None:
    os._exit(1)


@pytest.mark.slow
def test_a_closed_pool_raises(tmp_path: Path) -> None:
    with closing(DecoderPool()) as pool:
        pool.warm_up()
    with pytest.raises(UserError) as error:
        pool(JPEG, "a.jpg", 32)
    assert error.value.code == "app.closed"
