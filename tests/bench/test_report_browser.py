"""The report in a real browser: every control does what it says, and what is shown is what the rows say."""

import re
from pathlib import Path

import pandas as pd
import pytest
from browsing import (
    DESK,
    PHONE,
    By,
    Keys,
    drawn,
    fill,
    needs_browser,
    pick,
    press,
    section,
    show,
    table,
    until,
)
from report_runs import NASTY, failed_rows, predictions_of, radii_of, write_run

from bench.kept.store import Store
from bench.report.page import write_report

pytestmark = needs_browser


def rows_of(shown: Path, method: str, norm: str, certificate: str = "") -> pd.DataFrame:
    rows = Store(shown).read_run()[1]
    rows = rows[(rows["dataset"] == "tiny") & (rows["method"] == method) & (rows["norm"] == norm)]
    return rows[rows["certificate"].str.contains(certificate)]


def test_lines_are_certified_accuracy(report, shown):
    lines = drawn(report)
    radius = rows_of(shown, "fcnn", "l2", "closed_form")["radius"].astype(float).to_numpy()
    line = lines["Feature-convex network, closed form"]
    assert line["y"] == pytest.approx([(radius >= x).mean() for x in line["x"]])
    assert max(line["x"]) >= radius.max()
    upper = rows_of(shown, "fcnn", "l2", "in_domain")["radius_upper"].astype(float).to_numpy()
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


def test_typed_radii_are_counted_exactly(report, shown):
    rows = rows_of(shown, "verifier", "l2")
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


def test_the_images_follow_the_chosen_method_and_norm(report, shown):
    controls = section(report).find_element(By.CSS_SELECTOR, ".controls.inputs")
    pick(controls, "Method", "Feature-convex network, in domain (box)")
    press(controls, "ℓ∞")
    cards = section(report).find_elements(By.CSS_SELECTOR, ".card")
    radius = rows_of(shown, "fcnn", "linf", "in_domain").set_index("index")["radius"].astype(float)
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


def test_norms_with_equal_outcomes_share_a_row(report):
    counts = table(section(report), "Outcomes")
    assert counts["Norm"].tolist() == ["ℓ₁, ℓ₂, ℓ∞"] * 4
    assert counts["certified"].tolist() == ["30", "30", "30", "26"]
    (failed,) = table(section(report, 2), "Outcomes")["error"]
    assert failed == "30"


def test_names_are_shown_as_they_are_written(report):
    assert section(report, 1).find_element(By.TAG_NAME, "h2").text == NASTY
    title = "Complete <b>verifier</b> <img src=x onerror=window.hacked=1>"
    assert title in table(section(report, 1))["Method"].tolist()
    labels = section(report, 1).find_element(By.CSS_SELECTOR, ".seconds .ytick:last-of-type").text
    assert "<b>verifier</b>" in labels and "<img src=x" in labels
    assert not report.find_elements(By.CSS_SELECTOR, "img[onerror]")
    report.execute_script("document.querySelectorAll('#foot details').forEach(part => part.open = true)")
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


def test_rows_and_summary_can_be_saved(report, shown, tmp_path):
    where = {"behavior": "allow", "downloadPath": str(tmp_path)}
    report.execute_cdp_cmd("Browser.setDownloadBehavior", where)
    press(report.find_element(By.ID, "foot"), "All rows (radii.csv)")
    press(report.find_element(By.ID, "foot"), "Summary (summary.csv)")
    until(lambda: {"radii.csv", "summary.csv"} <= {path.name for path in tmp_path.iterdir()})
    rows = Store(shown).read_run()[1]
    saved = pd.read_csv(tmp_path / "radii.csv")
    assert len(saved) == len(rows)
    assert saved["radius"].sum() == pytest.approx(rows["radius"].astype(float).sum())
    summary = pd.read_csv(tmp_path / "summary.csv")
    assert len(summary) == 17 and summary["timeout"].sum() == 16 and NASTY in set(summary["dataset"])


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


def opened(report, shown: Path, fragment: str):
    """The page at an address, as someone who was sent it sees it."""
    report.get("about:blank")
    report.get(f"{(shown / 'report.html').as_uri()}#{fragment}")
    until(lambda: report.execute_script("return document.documentElement.dataset.ready"))
    return report


def test_what_is_shown_stands_in_the_address_and_a_link_opens_it(report, shown):
    address = "return location.hash"
    assert report.execute_script(address) == ""
    bar = report.find_element(By.ID, "toolbar")
    press(section(report).find_elements(By.CSS_SELECTOR, ".controls")[0], "ℓ∞")
    pick(bar, "Data set", NASTY)
    press(bar, "logarithmic")
    press(section(report, 1), "Gaussian smoothing")
    pick(section(report, 1).find_element(By.CSS_SELECTOR, ".controls.inputs"), "Method", "Gaussian smoothing")
    until(lambda: "open=methods" in report.execute_script(address))
    link = report.execute_script(address)
    for part in ("data=", "norm=linf", "axis=log", "method=smoothing"):
        assert part in link
    opened(report, shown, link[1:])
    assert report.find_elements(By.CSS_SELECTOR, "main > section")[1].is_displayed()
    hidden = section(report, 1).find_elements(By.CSS_SELECTOR, ".legend [aria-pressed='false']")
    assert [button.text for button in hidden] == ["Gaussian smoothing"]
    assert report.execute_script("return document.querySelector('#toolbar input[value=log]').checked")
    # What the page now says of itself is what it was asked for, folded parts included.
    assert report.execute_script(address) == link


def test_an_address_of_nothing_that_is_there_opens_the_first_view(report, shown):
    opened(report, shown, "data=nothing&norm=l7&method=who&curves=none&axis=linear")
    assert section(report).is_displayed() and drawn(report) == {}
    opened(report, shown, "about")
    assert section(report).is_displayed() and len(drawn(report)) == 5


def test_the_page_opens_with_the_verdict_and_its_table_leads_to_the_curves(report, shown):
    verdict = report.find_element(By.ID, "verdict")
    assert "FCNN" in verdict.text and "were not attacked" in verdict.text
    rows = table(verdict, "Who leads").set_index("Data set")
    assert list(rows.columns) == ["ℓ₁", "ℓ₂", "ℓ∞"] and {"tiny", NASTY} <= set(rows.index)
    report.execute_script("arguments[0].click()", verdict.find_elements(By.CSS_SELECTOR, "td.leader a")[-1])
    until(lambda: "norm=l2" in report.execute_script("return location.hash"))
    second = report.find_elements(By.CSS_SELECTOR, "main > section")[1]
    assert second.is_displayed()
    assert verdict.location["y"] < second.find_element(By.CSS_SELECTOR, ".chart").location["y"]


BROKEN_WORDS = """
const broken = [];
for (const cell of document.querySelectorAll("#verdict th[scope=row]")) {
  for (const node of cell.childNodes) {
    for (const word of node.nodeType === 3 ? node.data.matchAll(/\\S+/g) : []) {
      const range = document.createRange();
      range.setStart(node, word.index);
      range.setEnd(node, word.index + word[0].length);
      if (range.getClientRects().length > 1) broken.push(word[0]);
    }
  }
}
return broken;
"""


def test_a_phone_breaks_no_data_sets_name_within_a_word(browser, tmp_path):
    name = "malware_benign_128"
    out = write_run(tmp_path / "out", radii_of(name), [predictions_of(name)])
    write_report(out)
    show(browser, out, PHONE)
    assert name in table(browser.find_element(By.ID, "verdict"), "Who leads").iloc[0, 0]
    assert browser.execute_script(BROKEN_WORDS) == []
    assert browser.execute_script("return document.documentElement.scrollWidth") <= PHONE[0]


def test_details_are_folded_and_the_page_is_short(report, shown):
    for size, screens in ((DESK, 3), (PHONE, 6)):
        show(report, shown, size)
        assert not report.find_elements(By.CSS_SELECTOR, "details[open]")
        assert report.execute_script("return document.documentElement.scrollHeight") < screens * size[1]


def test_pictures_stand_in_one_row(report):
    cards = section(report).find_elements(By.CSS_SELECTOR, ".ends .card")
    assert len(cards) == 8 and len({card.location["y"] for card in cards}) == 1
