"""The page, in a real browser over a real cluster: what it shows, to whom, and what it lets in."""

import asyncio
from pathlib import Path

from agent_node import needs_node
from browser import browser, needs_chromium, prefer
from cluster_up import function, up
from selenium.webdriver.common.by import By
from selenium.webdriver.support.ui import WebDriverWait

from inferx.exec.gateway.api.page import PageRoutes

FUNCTIONS = 30
SHOWN_S = 20
HIDDEN = (
    "const it = document.getElementById('functions').closest('section');"
    "return it.scrollWidth - it.clientWidth"
)
REASON = "return reason(arguments[0]).textContent"
GROUND = "return getComputedStyle(document.body).backgroundColor"
EVICTION = {
    "kind": "evict",
    "function": "public/demo/m01@1",
    "at_ns": 0,
    "node": "node-0",
    "gpus": [1],
    "start": "resume",
    "reason": "no room",
    "victims": [],
    "explanation": None,
}


@needs_node
@needs_chromium
def test_thirty_functions_on_two_gpus_are_seen_with_what_they_do_and_why(tmp_path: Path) -> None:
    names = [f"m{number:02}" for number in range(FUNCTIONS)]
    with up(tmp_path) as cluster, browser() as chrome:
        asyncio.run(cluster.apply(*map(function, names)))
        for name in names[:16]:
            cluster.until_answers(name, 60)
        wait = WebDriverWait(chrome, SHOWN_S)
        chrome.get(f"{cluster.gateway}/ui/")
        chrome.find_element(By.ID, "key").send_keys("ix_wrong")
        chrome.find_element(By.CSS_SELECTOR, "form button").click()
        wait.until(lambda _: "opens nothing" in chrome.find_element(By.ID, "said").text)
        chrome.find_element(By.ID, "key").send_keys(cluster.key)
        chrome.find_element(By.CSS_SELECTOR, "form button").click()
        rows = "#functions tr"
        wait.until(lambda _: len(chrome.find_elements(By.CSS_SELECTOR, rows)) == FUNCTIONS)
        assert len(chrome.find_elements(By.CSS_SELECTOR, "#nodes figure")) == 2
        slices = chrome.find_elements(By.CSS_SELECTOR, "rect.slice")
        # A slice is as high as its share of memory and as wide as its share of compute.
        box = chrome.find_element(By.CSS_SELECTOR, "#nodes svg").rect
        assert slices
        for one in slices:
            assert abs(one.rect["width"] / box["width"] - 0.15) < 0.02
            assert abs(one.rect["height"] / box["height"] - 12_000e6 / (80 * 2**30)) < 0.02
        assert "place" in chrome.find_element(By.ID, "why").text
        # All of the table is seen, also on a narrow screen.
        for width in (1400, 1200):
            chrome.set_window_size(width, 1500)
            assert chrome.execute_script(HIDDEN) <= 0
        grounds = set()
        for scheme in ("light", "dark"):
            prefer(chrome, scheme)
            grounds.add(chrome.execute_script(GROUND))
            chrome.save_screenshot(str(tmp_path / f"{scheme}.png"))
        assert len(grounds) == 2
        told = chrome.execute_script(REASON, EVICTION)
        assert told.startswith("make room for public/demo/m01 on node-0 GPU 1")
        pod, of = chrome.execute_script("return [...whose][0]")
        told = chrome.execute_script(REASON, EVICTION | {"victims": [pod, 9999]})
        name = of.partition("@")[0].rpartition("/")[2]
        assert f"these leave: pod {pod} of {name}, pod 9999" in told
        told = chrome.execute_script(REASON, EVICTION | {"kind": "demote", "reason": "hbm"})
        assert "off the GPU" in told
        # The key lies where it ends with the tab, and nowhere else.
        assert chrome.execute_script("return localStorage.length") == 0
        assert chrome.get_cookies() == []
        assert cluster.key not in chrome.current_url
        chrome.find_element(By.ID, "leave").click()
        assert chrome.execute_script("return sessionStorage.length") == 0
        # What is not the page's own does not run.
        chrome.execute_script(
            "const one = document.createElement('script'); one.textContent = 'window.bad = 1';"
            "document.body.append(one)"
        )
        assert chrome.execute_script("return window.bad") is None
        said = [one["message"] for one in chrome.get_log("browser")]
        others = [one for one in said if "Content Security Policy" not in one and "401" not in one]
        assert others == []


def test_the_page_asks_nobody_else_for_anything() -> None:
    page = PageRoutes()
    text = page._body.decode()
    assert "https://" not in text
    assert text.count("http://") == text.count("http://www.w3.org/2000/svg") == 1
    assert "innerHTML" not in text
    assert "'unsafe" not in page._headers["Content-Security-Policy"]
