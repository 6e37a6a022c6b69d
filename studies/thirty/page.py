"""The gateway's page in a headless browser."""

import json
import shutil
import tempfile
import urllib.request
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Self

from selenium import webdriver
from selenium.webdriver.chrome.service import Service
from selenium.webdriver.common.by import By
from selenium.webdriver.support.ui import WebDriverWait

__all__ = ["Page"]

FLAGS = ("--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run")
WIDTH, HEIGHT = 1400, 1500
SHOWN_S = 20


class Page:
    """The page, opened with a key; pictures of it go to a folder."""

    def __init__(self, gateway: str, key: str, folder: Path) -> None:
        self._gateway, self._key, self._folder = gateway, key, folder
        self._stack = ExitStack()

    def __enter__(self) -> Self:
        options = webdriver.ChromeOptions()
        options.binary_location = shutil.which("chromium") or ""
        profile = self._stack.enter_context(
            tempfile.TemporaryDirectory(prefix="chromium-", ignore_cleanup_errors=True)
        )
        for flag in (*FLAGS, f"--user-data-dir={profile}", f"--window-size={WIDTH},{HEIGHT}"):
            options.add_argument(flag)
        self._chrome = webdriver.Chrome(
            options=options, service=Service(shutil.which("chromedriver"))
        )
        self._stack.callback(self._chrome.quit)
        self._chrome.get(f"{self._gateway}/ui/")
        self._chrome.find_element(By.ID, "key").send_keys(self._key)
        self._chrome.find_element(By.CSS_SELECTOR, "form button").click()
        WebDriverWait(self._chrome, SHOWN_S).until(
            lambda chrome: chrome.find_elements(By.CSS_SELECTOR, "#functions tr")
        )
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def picture(self, name: str, scheme: str) -> None:
        """Write `name`.png, as a user who prefers `dark` or `light` sees the page."""
        feature = {"name": "prefers-color-scheme", "value": scheme}
        self._chrome.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": [feature]})
        self._folder.mkdir(exist_ok=True)
        self._chrome.save_screenshot(str(self._folder / f"{name}.png"))

    def view(self) -> dict[str, Any]:
        """Return what the page is drawn from."""
        asked = urllib.request.Request(
            f"{self._gateway}/view/", headers={"Authorization": f"Bearer {self._key}"}
        )
        with urllib.request.urlopen(asked, timeout=SHOWN_S) as answer:
            found: dict[str, Any] = json.load(answer)
        return found
