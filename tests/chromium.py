"""Chromium for the browser tests: starting it, watching its requests, and the contrast of texts."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import numpy as np
import pytest
from playwright.sync_api import Browser, BrowserContext, Page, Route, expect, sync_playwright

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
ARGUMENTS = ["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking"]
ARGUMENTS += ["--disable-component-update", "--disable-sync"]
ARGUMENTS += ["--use-fake-device-for-media-stream", "--use-fake-ui-for-media-stream"]
TIMEOUT_MS = 60_000  # generous, for a busy machine


@contextmanager
def launcher() -> Iterator[Callable[..., Browser]]:
    """A function that launches Chromium with additional arguments and options; without Chromium the test is skipped."""
    if CHROMIUM is None:
        pytest.skip("there is no Chromium")
    with sync_playwright() as playwright:
        expect.set_options(timeout=TIMEOUT_MS)
        yield lambda *arguments, **options: playwright.chromium.launch(
            executable_path=CHROMIUM, args=[*ARGUMENTS, *arguments], **options
        )


@contextmanager
def watched(browser: Browser, *addresses: str) -> Iterator[BrowserContext]:
    """A new context, which must request only these addresses and not violate the Content-Security-Policy."""
    foreign_urls: list[str] = []
    violations: list[str] = []

    def watch(route: Route) -> None:
        if route.request.url.startswith((*addresses, "data:", "blob:")):
            route.continue_()
        else:
            foreign_urls.append(route.request.url)
            route.abort()

    context = browser.new_context(permissions=["camera", "clipboard-read", "clipboard-write"])
    context.set_default_timeout(TIMEOUT_MS)
    context.route("**/*", watch)
    context.on(
        "console", lambda message: violations.append(message.text) if "Content Security" in message.text else None
    )
    yield context
    context.close()
    assert foreign_urls == []
    assert violations == []


def contrast(page: Page, where: str) -> float:
    """The contrast ratio of a text and its background (WCAG 2.2 requires at least 4.5)."""
    colors = page.locator(where).first.evaluate(
        """element => {
            const text = getComputedStyle(element).color;
            let back = "rgba(0, 0, 0, 0)";
            for (let e = element; e && back === "rgba(0, 0, 0, 0)"; e = e.parentElement)
                back = getComputedStyle(e).backgroundColor;
            return [text, back].map(color => color.match(/[\\d.]+/g).slice(0, 3).map(Number));
        }"""
    )
    scaled = np.array(colors) / 255
    linear = np.where(scaled <= 0.04045, scaled / 12.92, ((scaled + 0.055) / 1.055) ** 2.4)
    low, high = sorted(linear @ [0.2126, 0.7152, 0.0722])
    return float((high + 0.05) / (low + 0.05))
