"""How the report looks in a real browser: on a desk, on a phone, in light and dark, on paper."""

import base64
import re

import pytest
from browsing import DESK, PHONE, By, Keys, needs_browser, press, section, show, until

pytestmark = needs_browser


@pytest.mark.parametrize("size", [DESK, PHONE], ids=["desk", "phone"])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_nothing_sticks_out_and_everything_can_be_read(report, shown, size, scheme):
    show(report, shown, size, scheme)
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


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_every_curve_can_be_told_apart_in_the_legend_as_in_the_charts(report, shown, scheme):
    show(report, shown, DESK, scheme)
    paper = report.execute_script("return getComputedStyle(document.body).backgroundColor")
    looks = report.execute_script(
        """return [...document.querySelectorAll('main > section .legend')][0].querySelectorAll('svg')
          .values().map(picture => [getComputedStyle(picture).color,
            picture.firstChild.getAttribute('stroke-dasharray'), picture.lastChild.getAttribute('d')]).toArray()"""
    )
    assert len(looks) == 4 and len(set(map(tuple, looks))) == 4
    assert min(contrast(color, paper) for color, _, _ in looks) >= 3  # what WCAG asks of graphics
    lines = report.execute_script(
        "return document.querySelector('.chart').data.filter(trace => trace.marker).map(trace => trace.line.color)"
    )
    assert [color.replace(" ", "") for color, _, _ in looks] == lines


def contrast(one: str, other: str) -> float:
    """The contrast ratio of two colours as WCAG 2 defines it."""
    lights = []
    for color in (one, other):
        shares = [float(channel) / 255 for channel in re.findall(r"[\d.]+", color)[:3]]
        linear = [s / 12.92 if s <= 0.04045 else ((s + 0.055) / 1.055) ** 2.4 for s in shares]
        lights.append(0.05 + 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2])
    return max(lights) / min(lights)


def test_links_and_folded_parts_lead_where_they_say(report):
    report.find_element(By.TAG_NAME, "body").send_keys(Keys.TAB)
    skip = report.switch_to.active_element
    assert skip.text == "Skip to the results"
    skip.send_keys(Keys.ENTER)
    for link in report.find_elements(By.CSS_SELECTOR, "nav a"):
        report.execute_script("arguments[0].click()", link)
        place = report.execute_script(
            "return document.querySelector(location.hash).getBoundingClientRect().top"
        )
        assert -1 <= place < DESK[1]
    folded = report.find_elements(By.CSS_SELECTOR, "#foot details")
    texts = ("95 % band", "Cohen et al. 2019", "30 inputs", "torch", "processor")
    for part, text in zip(folded, texts, strict=True):
        assert text not in part.text
        part.find_element(By.TAG_NAME, "summary").click()
        assert text in part.text


def test_the_theme_can_be_chosen_and_charts_follow(report):
    ink = "return [getComputedStyle(document.body).color, document.querySelector('.chart').layout.font.color]"
    for theme, is_dark in (("dark", True), ("light", False)):
        press(report.find_element(By.ID, "toolbar"), theme)
        page, chart = report.execute_script(ink)
        assert page == chart and (brightness(page) > 128) == is_dark
    press(report.find_element(By.ID, "toolbar"), "auto")
    media = {"features": [{"name": "prefers-color-scheme", "value": "dark"}]}
    report.execute_cdp_cmd("Emulation.setEmulatedMedia", media)
    until(lambda: all(brightness(color) > 128 for color in report.execute_script(ink)))


def test_it_prints_on_white_paper_with_every_part(report, shown):
    show(report, shown, DESK, "dark")
    parameters = {"printBackground": True, "preferCSSPageSize": True}
    printed = base64.b64decode(report.execute_cdp_cmd("Page.printToPDF", parameters)["data"])
    assert printed.startswith(b"%PDF") and len(printed) > 50_000
    report.execute_script("dispatchEvent(new Event('beforeprint'))")
    assert report.execute_script("return document.querySelector('.chart').layout.width") == 330
    assert brightness(report.execute_script("return getComputedStyle(document.body).backgroundColor")) == 255
    assert all(part.get_attribute("open") for part in report.find_elements(By.TAG_NAME, "details"))
    report.execute_script("dispatchEvent(new Event('afterprint'))")
    assert brightness(report.execute_script("return getComputedStyle(document.body).backgroundColor")) < 60


def test_nothing_is_cut_on_paper(report, shown):
    width = 1032  # A4 landscape less its margins, in CSS pixels
    show(report, shown, (width, 730))
    report.execute_script("dispatchEvent(new Event('beforeprint'))")
    report.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": "print"})
    try:
        cut = report.execute_script(
            """return [...document.querySelectorAll('body *')].filter(node => !node.closest('.skip')
              && node.getBoundingClientRect().right > arguments[0] + 1).map(node => node.outerHTML.slice(0, 80))""",
            width,
        )
        assert cut == []
        assert "Downloads" not in report.find_element(By.ID, "foot").text
        assert not report.find_element(By.ID, "toolbar").is_displayed()
        assert "Median radius" in section(report).find_element(By.CSS_SELECTOR, "thead").text
    finally:
        report.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": ""})
