"""The inputs with the smallest and the largest certified radius, and their adversarial examples, as small PNGs."""

import base64
import io
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from PIL import Image

from bench.basics.errors import UsageError
from bench.data import Dataset
from bench.data.request import DataRequest, cached_dataset
from bench.report.adversarial import CURVE_AND_SEED, Adversarials, extremes

MAX_SIDE = 64
MAX_PICTURE_BYTES = 700_000
NOT_LOADED = "The inputs are not shown: {reason}."
NO_IMAGES = "The inputs are tables, not images: they are listed by their position in the test split."
OTHER_DATA = "The inputs are not shown: the data set found now is not the one of this run."
FULL = "Some images are left out to keep this page small."


@dataclass
class Pictures:
    """Chooses the inputs to show and collects the pictures of one data set after another.

    out: the run's folder; data_dir, configuration (of its run.json): how its data sets were loaded.
    """

    out: Path
    data_dir: Path | None
    configuration: Mapping[str, Any]
    spent: int = 0
    note: str = ""
    found: dict[str, int] = field(default_factory=dict)

    def ends(self, rows: pd.DataFrame) -> dict[str, list[dict[str, Any]]]:
        """Return the inputs with the smallest and the largest radius of one curve, norm and its first seed."""
        chosen = extremes(rows)
        if not len(chosen["smallest"]):
            return {"smallest": [], "largest": []}
        first = chosen["smallest"].iloc[0]
        inputs, self.note = self._inputs(str(first["dataset"]), chosen)
        known = Adversarials.of(self.out, [first[name] for name in CURVE_AND_SEED])
        return {
            end: [self._card(row, inputs, known) for _, row in part.iterrows()]
            for end, part in chosen.items()
        }

    def take(self, name: str) -> dict[str, Any]:
        """Return the pictures collected since the last call, with what to say about them."""
        taken = {"pictures": list(self.found), "picture_note": self.note, "classes": self._classes(name)}
        self.found, self.note = {}, ""
        return taken

    def _inputs(self, name: str, chosen: dict[str, pd.DataFrame]) -> tuple[np.ndarray | None, str]:
        data = self._load(name)
        if isinstance(data, str):
            return None, NOT_LOADED.format(reason=data)
        index = np.concatenate([part["index"].to_numpy() for part in chosen.values()])
        if index.max() >= len(data.y_test) or not (data.y_test[index] == 1).all():
            return None, OTHER_DATA
        if len(data.input_shape) != 3 or data.input_shape[0] not in (1, 3):
            return None, NO_IMAGES
        return data.x_test, FULL if self.spent > MAX_PICTURE_BYTES else ""

    def _load(self, name: str) -> Dataset | str:
        try:
            return cached_dataset(DataRequest.of_run(self.configuration, name, self.data_dir))
        except UsageError as error:
            return str(error)

    def _classes(self, name: str) -> list[str]:
        data = self._load(name)
        return [] if isinstance(data, str) else list(data.classes)

    def _card(self, row: pd.Series, inputs: np.ndarray | None, known: Adversarials) -> dict[str, Any]:
        index, radius = int(row["index"]), float(row["radius"])
        shown = radius if np.isfinite(radius) else "Infinity"
        card: dict[str, Any] = {"index": index, "radius": shown, "picture": None}
        if inputs is not None:
            card["picture"] = self._picture(inputs[index])
            if index in known.points and known.points[index].shape == inputs[index].shape:
                card["adversarial"] = {
                    "picture": self._picture(known.points[index]),
                    "distance": known.distance(index, inputs[index], str(row["norm"])),
                    "breaks": index in known.breaking,
                }
        return card

    def _picture(self, image: np.ndarray) -> int | None:
        """Return the number of the image (C, H, W) among the pictures; None when the page has room for no more."""
        if self.spent > MAX_PICTURE_BYTES:
            return None
        address = png_address(image)
        if address not in self.found:
            self.spent += len(address)
        return self.found.setdefault(address, len(self.found))


def png_address(image: np.ndarray) -> str:
    """Return an image (C, H, W) in [0, 1], clipped and at most 64 pixels wide and high, as a data address."""
    levels = (np.clip(np.nan_to_num(image), 0, 1) * 255).round().astype(np.uint8)
    picture = Image.fromarray(levels[0] if len(levels) == 1 else np.moveaxis(levels, 0, -1))
    picture.thumbnail((MAX_SIDE, MAX_SIDE))
    sink = io.BytesIO()
    picture.save(sink, format="PNG", optimize=True)
    return f"data:image/png;base64,{base64.b64encode(sink.getvalue()).decode()}"
