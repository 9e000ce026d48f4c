"""The operating points of a run's tables: their order, their part in file names, tables from before there were any."""

from collections.abc import Iterable, Mapping
from typing import Any

import pandas as pd

from bench.basics.files import safe_name
from bench.calibration import BALANCED

POINT = "operating_point"


def points_in_order(configuration: Mapping[str, Any], found: Iterable[str]) -> list[str]:
    """Return the operating points found in a table, those of the run's configuration first and in its order."""
    found = sorted(set(found))
    listed = [str(point) for point in configuration.get("operating_points") or ()]
    return [
        *(point for point in listed if point in found),
        *(point for point in found if point not in listed),
    ]


def file_part(point: str, points: list[str]) -> str:
    """Return what the names of files about a point have between the data set and the rest: nothing for the first."""
    return "" if point == points[0] else f"_{point.replace('=', '_')}"


def curve_file(curve: Iterable[Any]) -> str:
    """Return the name of a curve's file, without its ending; balanced recalls, which older files are of, go unsaid."""
    return safe_name("_".join(str(part) for part in curve if part != BALANCED))


def with_points(frame: pd.DataFrame) -> pd.DataFrame:
    """Return a table read from a file, its rows balanced where it knows no operating points."""
    return frame if POINT in frame else frame.assign(**{POINT: BALANCED})
