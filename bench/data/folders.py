"""Reading image folders: train/<class>/* and test/<class>/*, decoded by Pillow."""

import math
import warnings
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image
from tqdm import tqdm

from bench.basics.errors import UsageError
from bench.data.raw import RawData, check_memory, reason

FORMATS = ("BMP", "JPEG", "PNG", "PPM", "WEBP")  # no format whose decoder starts another program
GREY_MODES = ("1", "L")
COLOUR_MODES = ("P", "RGB", "RGBA", "CMYK", "YCbCr")
MAX_PIXELS = 4096 * 4096


@dataclass(frozen=True)
class Picture:
    """One file, with what its header says: size (width, height) and Pillow's mode."""

    path: Path
    label: int
    size: tuple[int, int]
    mode: str


def read_folder(folder: Path) -> RawData:
    """Read a folder of pictures of one size, RGB or all grey; classes are numbered in name order.

    Headers are read first, so that odd pictures and sizes are refused before anything is decoded.
    """
    classes = _class_folders(folder / "train")
    if _class_folders(folder / "test") != classes:
        raise UsageError(
            f"{folder} has the classes {', '.join(classes)} in train/ but "
            f"{', '.join(_class_folders(folder / 'test'))} in test/; each split needs the same folders"
        )
    pictures = {split: _list_pictures(folder, split, classes) for split in ("train", "test")}
    everything = pictures["train"] + pictures["test"]
    _check_equal_sizes(everything)
    grey = all(picture.mode in GREY_MODES for picture in everything)
    values = len(everything) * math.prod(everything[0].size) * (1 if grey else 3)
    check_memory(values, values, str(folder))
    return RawData(
        x_train=_decode(pictures["train"], grey, folder.name),
        y_train=np.array([picture.label for picture in pictures["train"]], dtype=np.int64),
        x_test=_decode(pictures["test"], grey, folder.name),
        y_test=np.array([picture.label for picture in pictures["test"]], dtype=np.int64),
        classes=classes,
        origin=str(folder),
        own_ids=False,
    )


def _class_folders(split: Path) -> tuple[str, ...]:
    if not split.is_dir():
        raise UsageError(
            f"{split.parent} lacks the folder {split.name}/; an image data set has train/ and test/"
        )
    names = sorted(path.name for path in _visible(split) if path.is_dir())
    if len(names) < 2:
        raise UsageError(
            f"{split} has {len(names)} class folders; put the pictures of each class in its own one"
        )
    if not all(name.isprintable() for name in names):
        raise UsageError(f"{split} has a class folder with an unprintable name; use plain text")
    return tuple(names)


def _visible(folder: Path) -> list[Path]:
    return sorted(path for path in folder.iterdir() if not path.name.startswith("."))


def _list_pictures(folder: Path, split: str, classes: tuple[str, ...]) -> list[Picture]:
    root, pictures = folder.resolve(), []
    for label, name in enumerate(classes):
        paths = _visible(folder / split / name)
        if not paths:
            raise UsageError(f"{folder / split / name} is empty; every class needs pictures in both splits")
        for path in paths:
            if not path.resolve().is_relative_to(root):
                raise UsageError(
                    f"{str(path)!r} is a link that leads out of {folder}; put the picture itself there"
                )
            pictures.append(_read_header(path, label))
    return pictures


def _read_header(path: Path, label: int) -> Picture:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            if not path.is_file():  # opening a pipe or a device would wait or never end
                raise OSError("not a regular file")
            with Image.open(path, formats=FORMATS) as image:
                size, mode = image.size, image.mode
    except Exception as error:  # decoders raise almost anything on a damaged file
        raise _unreadable(path, error) from error
    if math.prod(size) > MAX_PIXELS:
        raise UsageError(
            f"{str(path)!r} has {size[0]}x{size[1]} pixels; at most {MAX_PIXELS} are allowed: shrink it"
        )
    if mode not in GREY_MODES + COLOUR_MODES:
        raise UsageError(
            f"{str(path)!r} has pixels of type {mode}; allowed are 8-bit grey and RGB: convert it"
        )
    return Picture(path, label, size, mode)


def _unreadable(path: Path, error: Exception) -> UsageError:
    return UsageError(
        f"cannot read the picture {str(path)!r} ({reason(error)}): repair or remove it; "
        f"readable are {', '.join(FORMATS)}"
    )


def _check_equal_sizes(pictures: list[Picture]) -> None:
    first = pictures[0]
    for picture in pictures:
        if picture.size != first.size:
            raise UsageError(
                f"{str(picture.path)!r} has {picture.size[0]}x{picture.size[1]} pixels, {str(first.path)!r} has "
                f"{first.size[0]}x{first.size[1]}; bring all pictures to one size first"
            )


def _decode(pictures: list[Picture], grey: bool, name: str) -> np.ndarray:
    """Return (N, H, W) or (N, H, W, 3) uint8; transparency is dropped."""
    width, height = pictures[0].size
    out = np.empty(
        (len(pictures), height, width) if grey else (len(pictures), height, width, 3), dtype=np.uint8
    )
    for row, picture in enumerate(tqdm(pictures, desc=f"reading {name}", leave=False, disable=None)):
        try:
            with Image.open(picture.path, formats=FORMATS) as image:
                out[row] = np.asarray(image.convert("L" if grey else "RGB"))
        except Exception as error:  # decoders raise almost anything on a damaged file
            raise _unreadable(picture.path, error) from error
    return out
