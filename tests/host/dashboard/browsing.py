"""A real browser for the tests of the page: Chromium, led by Playwright. Screenshots are kept in build/dashboard/."""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Iterator

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, Page, expect, sync_playwright

from sim.station import ROOT
from tests.host.dashboard.running import PASSWORD, USER

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
SHOTS = ROOT / "build" / "dashboard"
SIZES = {"tablet": (1024, 768), "desk": (1280, 800), "monitor": (1920, 1080)}
needs_chromium = pytest.mark.skipif(CHROMIUM is None, reason="there is no Chromium: apt-get install chromium")

expect.set_options(timeout=20_000)  # the machine may be busy


@contextlib.contextmanager
def open_browser(*options: str) -> Iterator[Browser]:
    SHOTS.mkdir(parents=True, exist_ok=True)
    with sync_playwright() as playwright:
        # subtle: the sandbox needs rights that root in a container does not have; nothing but our page is opened
        arguments = ["--no-sandbox", "--disable-gpu", *options]
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=arguments)
        with contextlib.closing(browser):
            yield browser


@contextlib.contextmanager
def open_tab(browser: Browser, url: str, size: str, errors: list[str]) -> Iterator[Page]:
    """`errors`: where those of scripts and of the policy are noted."""
    width, height = SIZES[size]
    context = browser.new_context(viewport={"width": width, "height": height})
    context.set_default_timeout(30_000)
    with contextlib.closing(context):
        page = context.new_page()
        page.on("pageerror", lambda error: errors.append(str(error)))
        page.on("console", lambda message: note_console(message.type, message.text, errors))
        page.goto(url)
        yield page


def note_console(kind: str, text: str, errors: list[str]) -> None:
    """subtle: an answer of 4xx to a fetch is an "error" there too, and is what some tests ask for."""
    if kind == "error" and "Failed to load resource" not in text:
        errors.append(text)


def fill_login(page: Page) -> None:
    """Its dialog is open."""
    page.locator("#login-form input[name=user]").fill(USER)
    page.locator("#login-form input[name=password]").fill(PASSWORD)
    page.keyboard.press("Enter")


def require_accessible(page: Page) -> None:
    """Raises: AssertionError with axe's own report."""
    results = Axe().run(page, options={"runOnly": ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "best-practice"]})
    assert results.violations_count == 0, results.generate_report()


def fits(page: Page) -> bool:
    """Nothing of the view needs scrolling."""
    script = """() => ["html", "main", ".shifts .scroll"].every((name) => {
        const box = document.querySelector(name);
        return box.scrollHeight <= box.clientHeight && box.scrollWidth <= box.clientWidth;
    })"""
    return bool(page.evaluate(script))
