"""Malware families as Malimg is distributed: a folder of grey byte plots for each family, of many sizes, no test split.

One family stands for what is harmless, all others together are malware and sensitive, and the larger side is cut down
at random to the size of the smaller one, as in the paper (Allaple.A against the 24 others).
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from bench.basics.errors import UsageError, unknown
from bench.basics.seeds import derive_seed
from bench.data.folders import FORMATS
from bench.data.raw import RawData, check_memory, reason

HARMLESS = "Allaple.A"
SIDE = 512
TEST_SHARE = 0.2
CLASSES = (HARMLESS, "malware")


@dataclass(frozen=True, eq=False)
class Families:
    """Byte plots x_* (N, side, side) uint8 with their family_* (N,), an index into names; names[0] is harmless."""

    x_train: np.ndarray
    family_train: np.ndarray
    x_test: np.ndarray
    family_test: np.ndarray
    names: tuple[str, ...]
    origin: str

    def binary(self) -> RawData:
        """The two-class problem: label 1 is malware of any family, label 0 the harmless one."""
        return RawData(
            x_train=self.x_train,
            y_train=(self.family_train > 0).astype(np.int64),
            x_test=self.x_test,
            y_test=(self.family_test > 0).astype(np.int64),
            classes=(self.names[0], CLASSES[1]),
            origin=self.origin,
        )


def is_families(folder: Path) -> bool:
    """Say whether a folder has one subfolder for each family, and not the train/ and test/ of other image sets."""
    return (folder / HARMLESS).is_dir() and not (folder / "train").is_dir()


def read_families(folder: Path, side: int = SIDE, harmless: str = HARMLESS) -> Families:
    """Read, balance, crop to the centre ``side`` x ``side`` (zero-padded) and split off a test part of every family.

    Raises UsageError for a folder without the harmless family or any other, or with a file that is no picture.
    """
    families = {
        path.name: sorted(file for file in path.iterdir() if not file.name.startswith("."))
        for path in sorted(folder.iterdir())
        if path.is_dir() and not path.name.startswith(".")
    }
    if harmless not in families or len(families) < 2:
        raise unknown("family", harmless, families, f"{folder} needs its folder and at least one more")
    names = (harmless, *(name for name in families if name != harmless))
    family, files = _balanced({place: families[name] for place, name in enumerate(names)})
    check_memory(len(files) * side**2, len(files) * side**2, str(folder))
    test = _test_part(family)
    x = np.stack([_centre(path, side) for path in files])
    return Families(x[~test], family[~test], x[test], family[test], names, str(folder))


def _balanced(files: dict[int, list[Path]]) -> tuple[np.ndarray, list[Path]]:
    """Return family indices (N,) and files, as many harmless ones as malware."""
    family = np.repeat(list(files), [len(part) for part in files.values()])
    everything = [path for part in files.values() for path in part]
    sides = np.flatnonzero(family == 0), np.flatnonzero(family > 0)
    size = min(map(len, sides))
    if size < 2:
        raise UsageError(
            f"the families have {len(sides[0])} harmless and {len(sides[1])} malware files: give more"
        )
    rng = np.random.default_rng(derive_seed("families", "balance"))
    kept = np.sort(np.concatenate([rng.permutation(part)[:size] for part in sides]))
    return family[kept], [everything[place] for place in kept]


def _test_part(family: np.ndarray) -> np.ndarray:
    """Return which examples (N,) are for testing: a fifth of each family."""
    rng = np.random.default_rng(derive_seed("families", "test"))
    test = np.zeros(len(family), dtype=bool)
    for index in np.unique(family):
        members = rng.permutation(np.flatnonzero(family == index))
        test[members[: round(TEST_SHARE * len(members))]] = True
    return test


def _centre(path: Path, side: int) -> np.ndarray:
    """Return the picture's centre (side, side), padded with zeros where it is smaller."""
    try:
        with Image.open(path, formats=FORMATS) as image:
            pixels = np.asarray(image.convert("L"))
    except Exception as error:  # decoders raise almost anything on a damaged file
        raise UsageError(
            f"cannot read the picture {str(path)!r} ({reason(error)}): repair or remove it"
        ) from error
    for axis in (0, 1):
        excess = pixels.shape[axis] - side
        if excess > 0:
            pixels = pixels.take(range(excess // 2, excess // 2 + side), axis=axis)
        else:
            before = -excess // 2
            padding = [(0, 0), (0, 0)]
            padding[axis] = (before, -excess - before)
            pixels = np.pad(pixels, padding)
    return pixels
