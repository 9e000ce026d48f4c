"""A report in a real browser: what tests press, fill in and read there."""

import os
import re
import shutil
import time
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest

webdriver = pytest.importorskip("selenium.webdriver")
from selenium.webdriver.chrome.service import Service  # noqa: E402
from selenium.webdriver.common.by import By  # noqa: E402
from selenium.webdriver.common.keys import Keys  # noqa: E402
from selenium.webdriver.support.ui import Select  # noqa: E402

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
DRIVER = shutil.which("chromedriver")
needs_browser = pytest.mark.skipif(
    not (CHROMIUM and DRIVER),
    reason="needs Chromium and its driver: apt-get install chromium chromium-driver",
)
QUIET = (
    "--headless=new",
    "--disable-gpu",
    "--disable-quic",
    "--disable-dev-shm-usage",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--no-first-run",
)
DESK, PHONE = (1280, 900), (390, 844)
Browser = webdriver.Chrome


def open_browser(profile: Path) -> Browser:
    """Start Chromium without a window; ``profile`` is a folder of its own."""
    options = webdriver.ChromeOptions()
    options.binary_location = CHROMIUM
    for argument in (*QUIET, f"--user-data-dir={profile}"):
        options.add_argument(argument)
    if hasattr(os, "geteuid") and os.geteuid() == 0:
        options.add_argument("--no-sandbox")  # Chromium refuses to run as root otherwise
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    return Browser(options=options, service=Service(DRIVER))


def show(browser: Browser, out: Path, size: tuple[int, int], scheme: str = "light") -> None:
    width, height = size
    media = {"features": [{"name": "prefers-color-scheme", "value": scheme}]}
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", media)
    metrics = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 600}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
    browser.get((out / "report.html").as_uri())
    until(lambda: browser.execute_script("return document.documentElement.dataset.ready"))


def until(condition: Callable[[], object], seconds: float = 60.0) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "the page did not get there in time"
        time.sleep(0.05)


def section(browser: Browser, place: int = 0):
    """The part of one data set and operating point, brought to the front with all its folded parts open."""
    shown = browser.find_elements(By.CSS_SELECTOR, "main > section")[place]
    names = browser.find_elements(By.CSS_SELECTOR, "#toolbar select")
    if names and not shown.is_displayed():
        Select(names[0]).select_by_index(place)
    browser.execute_script(
        "arguments[0].querySelectorAll('details').forEach(part => part.open = true)", shown
    )
    return shown


def press(scope, text: str) -> None:
    """Click the button or option with this text."""
    for node in scope.find_elements(By.CSS_SELECTOR, "button, .choice label, .tick"):
        if node.text.strip() == text:
            scope.parent.execute_script("arguments[0].scrollIntoView({block: 'center'})", node)
            (node.find_elements(By.TAG_NAME, "input") or [node])[0].click()
            return
    raise AssertionError(f"there is nothing to press called {text!r}")


def fill(scope, label: str, text: str) -> None:
    node = next(node for node in scope.find_elements(By.CSS_SELECTOR, ".field") if label in node.text)
    box = node.find_element(By.TAG_NAME, "input")
    box.send_keys(Keys.CONTROL, "a")
    box.send_keys(text or Keys.DELETE)


def pick(scope, label: str, text: str) -> None:
    node = next(node for node in scope.find_elements(By.CSS_SELECTOR, ".field") if label in node.text)
    Select(node.find_element(By.TAG_NAME, "select")).select_by_visible_text(text)


def table(scope, name: str = "Methods on") -> pd.DataFrame:
    """What a table on the page shows, as text."""
    shown = scope.find_element(By.CSS_SELECTOR, f".scroll[aria-label^='{name}']")
    rows = scope.parent.execute_script(
        "return [...arguments[0].querySelectorAll('tr')].map(row => [...row.cells].map(cell => cell.innerText.trim()))",
        shown,
    )
    head = [re.sub(r" [▲▼]$", "", title) for title in rows[0]]
    return pd.DataFrame([row for row in rows[1:] if len(row) == len(head)], columns=head)


def drawn(browser: Browser, norm: str = "l2") -> dict[str, dict]:
    """The lines of a chart of the first data set by name, as the charting library holds them."""
    return browser.execute_script(
        """const chart = document.querySelector(`.chart[data-norm='${arguments[0]}']`);
        return Object.fromEntries(chart.data.filter(trace => trace.name).map(trace => [trace.name,
          {x: Array.from(trace.x), y: Array.from(trace.y), symbol: trace.marker?.symbol ?? ''}]))""",
        norm,
    )
