"""Fixtures of the tests that look at reports in a browser."""

from collections.abc import Iterator
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator:
    from browsing import open_browser

    driver = open_browser(tmp_path_factory.mktemp("profile"))
    yield driver
    driver.quit()


@pytest.fixture(scope="session")
def shown(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run with its report, in which there is everything that a report can show."""
    from report_runs import NASTY, failed_rows, predictions_of, radii_of, write_images, write_run

    from bench.report.page import write_report

    nasty = [frame for frame in radii_of(NASTY) if frame["norm"].iloc[0] == "l2"]
    frames = [*radii_of("tiny"), *nasty, failed_rows("failed")]
    folder = tmp_path_factory.mktemp("browser")
    names = ["tiny", NASTY, "failed"]
    out = write_run(folder / "out", frames, [predictions_of("tiny"), predictions_of(NASTY)], datasets=names)
    write_report(out, write_images(folder / "data"))
    return out


@pytest.fixture
def report(browser, shown: Path) -> Iterator:
    """The report, freshly opened on a desk in light colours; at the end nothing may have been complained about."""
    from browsing import DESK, show

    browser.get_log("browser")
    show(browser, shown, DESK)
    yield browser
    assert browser.get_log("browser") == []
    assert browser.execute_script("return window.hacked") is None
