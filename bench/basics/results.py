"""Where published tables and figures lie."""

from pathlib import Path

RESULTS = Path(__file__).parents[2] / "results"
