"""The report of a run: one HTML file for people, with everything in it and no network needed."""

from bench.report.page import REPORT, write_report

__all__ = ["REPORT", "write_report"]
