"""The report in a real browser: every control does what it says, on a desk, on a phone, by keyboard, on paper."""

import base64
import os
import re
import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pandas as pd
import pytest
from report_runs import NASTY, failed_rows, predictions_of, radii_of, write_images, write_run

from bench.report import write_report
from bench.store import Store

webdriver = pytest.importorskip("selenium.webdriver")
from selenium.webdriver.chrome.service import Service  # noqa: E402
from selenium.webdriver.common.by import By  # noqa: E402
from selenium.webdriver.common.keys import Keys  # noqa: E402
from selenium.webdriver.support.ui import Select  # noqa: E402

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
DRIVER = shutil.which("chromedriver")
pytestmark = pytest.mark.skipif(
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


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    options = webdriver.ChromeOptions()
    options.binary_location = CHROMIUM
    for argument in (*QUIET, f"--user-data-dir={tmp_path_factory.mktemp('profile')}"):
        options.add_argument(argument)
    if hasattr(os, "geteuid") and os.geteuid() == 0:
        options.add_argument("--no-sandbox")  # Chromium refuses to run as root otherwise
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    driver = Browser(options=options, service=Service(DRIVER))
    yield driver
    driver.quit()


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    nasty = [frame for frame in radii_of(NASTY) if frame["norm"].iloc[0] == "l2"]
    frames = [*radii_of("tiny"), *nasty, failed_rows("failed")]
    folder = tmp_path_factory.mktemp("browser")
    names = ["tiny", NASTY, "failed"]
    out = write_run(folder / "out", frames, [predictions_of("tiny"), predictions_of(NASTY)], datasets=names)
    write_report(out, write_images(folder / "data"))
    return out


@pytest.fixture
def report(browser: Browser, run: Path) -> Browser:
    """The report, freshly opened on a desk in light colours; at the end nothing may have been complained about."""
    browser.get_log("browser")
    show(browser, run, DESK)
    yield browser
    assert browser.get_log("browser") == []
    assert browser.execute_script("return window.hacked") is None


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
    return browser.find_elements(By.CSS_SELECTOR, "main > section")[place]


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


def rows_of(run: Path, method: str, norm: str, certificate: str = "") -> pd.DataFrame:
    rows = Store(run).read_run()[1]
    rows = rows[(rows["dataset"] == "tiny") & (rows["method"] == method) & (rows["norm"] == norm)]
    return rows[rows["certificate"].str.contains(certificate)]


@pytest.mark.parametrize("size", [DESK, PHONE], ids=["desk", "phone"])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_nothing_sticks_out_and_everything_can_be_read(report, run, size, scheme):
    show(report, run, size, scheme)
    assert report.execute_script("return document.documentElement.scrollWidth") <= size[0]
    sticking_out = report.execute_script(
        """return [...document.querySelectorAll('body *')].filter(node => !node.closest('.scroll, pre, .skip')
          && node.getBoundingClientRect().right > innerWidth + 1).map(node => node.outerHTML.slice(0, 80))"""
    )
    assert sticking_out == []
    paper, ink = report.execute_script(
        "const style = getComputedStyle(document.body); return [style.backgroundColor, style.color]"
    )
    dark, light = sorted((paper, ink), key=brightness)
    assert (dark == paper) == (scheme == "dark")
    assert brightness(light) - brightness(dark) > 180
    assert not report.find_elements(By.CSS_SELECTOR, ".chart .error")
    assert len(report.find_elements(By.CSS_SELECTOR, ".chart .main-svg")) >= 4


def brightness(color: str) -> float:
    return sum(map(float, re.findall(r"[\d.]+", color)[:3])) / 3


def test_lines_are_certified_accuracy(report, run):
    lines = drawn(report)
    radius = rows_of(run, "fcnn", "l2", "closed_form")["radius"].astype(float).to_numpy()
    line = lines["Feature-convex network, closed form"]
    assert line["y"] == pytest.approx([(radius >= x).mean() for x in line["x"]])
    assert max(line["x"]) >= radius.max()
    upper = rows_of(run, "fcnn", "l2", "in_domain")["radius_upper"].astype(float).to_numpy()
    bracket = next(line for name, line in lines.items() if "empirical" in name)
    assert bracket["y"] == pytest.approx([1 - (upper < x).mean() for x in bracket["x"]])
    # A marker is hollow where the radius is converted from another norm.
    assert "open" not in lines["Gaussian smoothing"]["symbol"]
    assert "open" in drawn(report, "l1")["Gaussian smoothing"]["symbol"]


def test_a_method_is_hidden_and_shown_again_by_its_button(report):
    press(section(report), "Gaussian smoothing")
    assert all("Gaussian smoothing" not in drawn(report, norm) for norm in ("l1", "l2", "linf"))
    button = section(report).find_element(By.CSS_SELECTOR, ".legend [aria-pressed='false']")
    assert button.text == "Gaussian smoothing"
    press(section(report), "Hide all")
    assert drawn(report) == {}
    press(section(report), "Show all")
    assert "Gaussian smoothing" in drawn(report) and len(drawn(report)) == 5


def test_axis_domain_band_and_bracket_switches(report):
    bar = report.find_element(By.ID, "toolbar")
    kind = "return document.querySelector('.chart').layout.xaxis.type"
    press(bar, "logarithmic")
    assert report.execute_script(kind) == "log" and min(drawn(report)["Gaussian smoothing"]["x"]) > 0
    press(bar, "linear")
    assert report.execute_script(kind) == "linear"
    press(bar, "anywhere")
    assert not any("(box)" in name for name in [*drawn(report), *table(section(report))["Method"]])
    press(bar, "in the box")
    names = set(drawn(report))
    # A free certificate holds in the box, too; but of a method with both, the one for the box is shown.
    assert "Gaussian smoothing" in names and "Feature-convex network, closed form" not in names
    assert "Feature-convex network, in domain (box)" in names
    press(bar, "empirical upper end")
    assert not any("empirical" in name for name in drawn(report))
    count = "return document.querySelector('.chart').data.length"
    before = report.execute_script(count)
    press(bar, "95 % band")
    assert report.execute_script(count) == before / 3


def test_hovering_shows_name_and_values(report):
    chart = report.find_element(By.CSS_SELECTOR, ".chart[data-norm='l2']")
    report.execute_script("arguments[0].scrollIntoView({block: 'center'})", chart)
    report.execute_script("Plotly.Fx.hover(arguments[0], [{curveNumber: 2, pointNumber: 40}])", chart)
    until(lambda: chart.find_elements(By.CSS_SELECTOR, ".hovertext"))
    text = chart.find_element(By.CSS_SELECTOR, ".hovertext").text
    for word in ("closed form", "radius 0.", "certified: ", "95 % band"):
        assert word in text


def test_typed_radii_are_counted_exactly(report, run):
    rows = rows_of(run, "verifier", "l2")
    fill(section(report), "Certified accuracy", "0.2, 0.2000001 0.4")
    shown = table(section(report)).set_index("Method")
    for radius in ("0.2", "0.2000001", "0.4"):
        share = (rows["radius"].astype(float) >= float(radius)).mean()
        cell = shown.loc[shown.index.str.startswith("Complete"), f"Certified at {radius}"].item()
        assert cell == f"{int(1000 * share + 1e-9) / 10:.1f} %"
    assert shown["Certified at 0.2"].tolist() != shown["Certified at 0.2000001"].tolist()
    fill(section(report), "Certified accuracy", "0.2, abc")
    assert "“abc” is not a radius" in section(report).find_element(By.CSS_SELECTOR, ".problem").text
    assert "Certified at 0.2" in table(section(report)).columns
    fill(section(report), "Certified accuracy", "")
    assert not [name for name in table(section(report)).columns if name.startswith("Certified at")]
    assert section(report).find_element(By.CSS_SELECTOR, ".problem").text == ""


def test_the_table_has_a_page_for_each_norm_and_keeps_typed_radii(report):
    fill(section(report), "Certified accuracy", "0.3")
    press(section(report).find_elements(By.CSS_SELECTOR, ".controls")[0], "ℓ∞")
    shown = table(section(report)).set_index("Method")
    assert shown.loc["Gaussian smoothing", "Radius"] == "converted"
    assert "Certified at 0.3" not in shown.columns
    press(section(report).find_elements(By.CSS_SELECTOR, ".controls")[0], "ℓ₂")
    assert "Certified at 0.3" in table(section(report)).columns


def test_sorting_by_a_click_on_the_head(report):
    press(section(report), "Time per certificate")
    assert table(section(report))["Time per certificate"].tolist() == ["20 s", "300 ms", "4 ms", "2 ms"]
    press(section(report), "Time per certificate ▼")
    assert table(section(report))["Time per certificate"].tolist() == ["2 ms", "4 ms", "300 ms", "20 s"]
    head = section(report).find_element(By.CSS_SELECTOR, "th[aria-sort='ascending']")
    assert head.text.startswith("Time")
    press(section(report), "Method")
    names = table(section(report))["Method"].tolist()
    assert names == sorted(names)
    press(section(report), "Mean radius")
    assert table(section(report))["Mean radius"].iloc[0] == "∞"


def test_filters(report):
    fill(section(report), "Find a method", "convex DOMAIN")
    assert table(section(report))["Method"].tolist() == ["Feature-convex network, in domain (box)"]
    fill(section(report), "Find a method", "nothing like it")
    assert "No method passes" in section(report).find_element(By.CSS_SELECTOR, ".scroll").text
    fill(section(report), "Find a method", "")
    pick(section(report), "Guarantee", "probabilistic")
    assert table(section(report))["Guarantee"].tolist() == ["probabilistic, α = 0.001"]
    pick(section(report), "Radius", "converted")
    assert table(section(report)).empty
    press(section(report).find_elements(By.CSS_SELECTOR, ".controls")[0], "ℓ₁")
    assert table(section(report))["Method"].tolist() == ["Gaussian smoothing"]


def test_the_images_follow_the_chosen_method_and_norm(report, run):
    controls = section(report).find_element(By.CSS_SELECTOR, ".controls.inputs")
    pick(controls, "Method", "Feature-convex network, in domain (box)")
    press(controls, "ℓ∞")
    cards = section(report).find_elements(By.CSS_SELECTOR, ".card")
    radius = rows_of(run, "fcnn", "linf", "in_domain").set_index("index")["radius"].astype(float)
    smallest = radius.sort_values(kind="stable").index[:4].tolist()
    assert [int(re.search(r"Input (\d+)", card.text).group(1)) for card in cards[:4]] == smallest
    assert cards[4].text.strip() == "Input 0: radius ∞"
    widths = [card.find_element(By.TAG_NAME, "img").get_property("naturalWidth") for card in cards]
    assert widths == [8] * 8


def test_timeouts_and_errors_are_in_plain_sight(report):
    status = report.find_element(By.CSS_SELECTOR, ".status")
    assert "16 ended in timeout" in status.text and "30 ended in error" in status.text
    for place, text in ((0, "4"), (2, "30")):
        bad = section(report, place).find_elements(By.CSS_SELECTOR, "td.bad")
        assert text in [cell.text for cell in bad]
    assert "30 s were not enough" in table(section(report), "Reasons")["Reason"].tolist()
    assert "RuntimeError: <b>out of luck</b>" in section(report, 2).text
    assert "Nothing was certified in this norm." in section(report, 2).text


def test_names_are_shown_as_they_are_written(report):
    assert section(report, 1).find_element(By.TAG_NAME, "h2").text == NASTY
    title = "Complete <b>verifier</b> <img src=x onerror=window.hacked=1>"
    assert title in table(section(report, 1))["Method"].tolist()
    labels = report.find_element(By.CSS_SELECTOR, ".seconds .ytick:last-of-type").text
    assert "<b>verifier</b>" in labels and "<img src=x" in labels
    assert not report.find_elements(By.CSS_SELECTOR, "img[onerror]")
    assert "</script><script>window.hacked = 1</script>" in report.find_element(By.ID, "foot").text


def test_everything_works_by_keyboard(report):
    report.execute_script("document.querySelector('.legend button').focus({focusVisible: true})")
    focused = report.switch_to.active_element
    style = "return getComputedStyle(document.activeElement).outlineStyle"
    assert report.execute_script(style) == "solid"
    name = focused.text
    focused.send_keys(Keys.SPACE)
    assert name not in drawn(report)
    axis = report.find_element(By.CSS_SELECTOR, "#toolbar input[value='linear']")
    axis.send_keys(Keys.ARROW_RIGHT)
    assert report.execute_script("return document.querySelector('.chart').layout.xaxis.type") == "log"
    head = section(report).find_element(By.CSS_SELECTOR, "[data-column='Median radius']")
    head.send_keys(Keys.ENTER)
    head = report.switch_to.active_element
    assert head.get_attribute("data-column") == "Median radius"
    head.send_keys(Keys.ENTER)
    assert section(report).find_elements(By.CSS_SELECTOR, "th[aria-sort='ascending']")
    unreachable = report.execute_script(
        """return [...document.querySelectorAll('button, input, select, a[href], .scroll')]
          .filter(node => node.tabIndex < 0).length"""
    )
    assert unreachable == 0
    unnamed = report.execute_script(
        """return [...document.querySelectorAll('input, select')].filter(n => !n.labels.length
          || !n.labels[0].textContent.trim()).length"""
    )
    assert unnamed == 0


def test_the_theme_can_be_chosen_and_charts_follow(report):
    ink = "return [getComputedStyle(document.body).color, document.querySelector('.chart').layout.font.color]"
    for theme, is_dark in (("dark", True), ("light", False)):
        press(report.find_element(By.ID, "toolbar"), theme)
        page, chart = report.execute_script(ink)
        assert page == chart and (brightness(page) > 128) == is_dark


def test_rows_and_summary_can_be_saved(report, run, tmp_path):
    where = {"behavior": "allow", "downloadPath": str(tmp_path)}
    report.execute_cdp_cmd("Browser.setDownloadBehavior", where)
    press(report.find_element(By.ID, "foot"), "All rows (radii.csv)")
    press(report.find_element(By.ID, "foot"), "Summary (summary.csv)")
    until(lambda: {"radii.csv", "summary.csv"} <= {path.name for path in tmp_path.iterdir()})
    rows = Store(run).read_run()[1]
    saved = pd.read_csv(tmp_path / "radii.csv")
    assert len(saved) == len(rows)
    assert saved["radius"].sum() == pytest.approx(rows["radius"].astype(float).sum())
    summary = pd.read_csv(tmp_path / "summary.csv")
    assert len(summary) == 17 and summary["timeout"].sum() == 16 and NASTY in set(summary["dataset"])


def test_it_prints_on_white_paper_with_every_part(report, run):
    show(report, run, DESK, "dark")
    parameters = {"printBackground": True, "preferCSSPageSize": True}
    printed = base64.b64decode(report.execute_cdp_cmd("Page.printToPDF", parameters)["data"])
    assert printed.startswith(b"%PDF") and len(printed) > 50_000
    report.execute_script("dispatchEvent(new Event('beforeprint'))")
    assert report.execute_script("return document.querySelector('.chart').layout.width") == 330
    assert brightness(report.execute_script("return getComputedStyle(document.body).backgroundColor")) == 255
    assert all(part.get_attribute("open") for part in report.find_elements(By.TAG_NAME, "details"))
    report.execute_script("dispatchEvent(new Event('afterprint'))")
    assert brightness(report.execute_script("return getComputedStyle(document.body).backgroundColor")) < 60


@pytest.mark.parametrize("frames", [[failed_rows("failed")], []], ids=["failed cells", "no cells"])
def test_a_run_that_came_to_nothing_says_so(browser, frames, tmp_path):
    out = write_run(tmp_path / "out", frames, [])
    write_report(out)
    browser.get_log("browser")
    show(browser, out, PHONE)
    status = browser.find_element(By.CSS_SELECTOR, ".status").text
    assert ("30 ended in error" if frames else "no rows") in status
    assert browser.execute_script("return document.documentElement.scrollWidth") <= PHONE[0]
    assert browser.get_log("browser") == []
