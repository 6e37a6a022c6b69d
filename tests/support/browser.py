"""A headless Chromium of its own, with a profile that is gone after it."""

import shutil
import tempfile
from collections.abc import Generator
from contextlib import contextmanager

import pytest
from selenium import webdriver
from selenium.webdriver.chrome.service import Service

__all__ = ["browser", "needs_chromium", "prefer"]

PROGRAMS = shutil.which("chromium"), shutil.which("chromedriver")
FLAGS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--disable-dev-shm-usage",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)
needs_chromium = pytest.mark.skipif(
    not all(PROGRAMS), reason="needs Debian's chromium and chromium-driver; see tools/system-parts"
)


@contextmanager
def browser() -> Generator[webdriver.Chrome]:
    """Run one, as wide as a desk's screen."""
    program, driver = PROGRAMS
    assert program is not None
    options = webdriver.ChromeOptions()
    options.binary_location = program
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    with tempfile.TemporaryDirectory(prefix="chromium-", ignore_cleanup_errors=True) as profile:
        for flag in (*FLAGS, f"--user-data-dir={profile}", "--window-size=1400,1500"):
            options.add_argument(flag)
        chrome = webdriver.Chrome(options=options, service=Service(driver))
        try:
            yield chrome
        finally:
            chrome.quit()


def prefer(chrome: webdriver.Chrome, scheme: str) -> None:
    """Have a browser's user prefer `dark` or `light`."""
    feature = {"name": "prefers-color-scheme", "value": scheme}
    chrome.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": [feature]})
