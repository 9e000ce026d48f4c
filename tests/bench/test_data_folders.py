"""Image folders: what Pillow decodes, and what is refused."""

import os
import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from bench.basics.errors import UsageError
from bench.data import load_dataset


@pytest.fixture
def pets(tmp_path):
    """A folder data set of 6x4 lossless RGB pictures; each has a colour of its own."""
    rng = np.random.default_rng(0)
    for split, count in (("train", 4), ("test", 2)):
        for name in ("cat", "dog"):
            folder = tmp_path / "pets" / split / name
            folder.mkdir(parents=True)
            for number in range(count):
                pixels = rng.integers(0, 256, (4, 6, 3), dtype=np.uint8)
                Image.fromarray(pixels).save(folder / f"{number}.png")
    return tmp_path / "pets"


def message(folder, sensitive="cat") -> str:
    with pytest.raises(UsageError) as error:
        load_dataset(folder.name, folder.parent, sensitive)
    assert "\n" not in str(error.value)
    return str(error.value)


def test_pictures_become_channels_first_and_the_named_class_is_sensitive(pets):
    data = load_dataset("pets", pets.parent, "dog")
    assert data.classes == ("dog", "cat") and data.input_shape == (3, 4, 6)
    assert data.y_test.tolist() == [0, 0, 1, 1]
    first = np.asarray(Image.open(pets / "test" / "cat" / "0.png"))
    assert np.array_equal(data.x_test[0], (first / np.float32(255)).transpose(2, 0, 1))
    assert len(data.x_train) == 6 and data.y_val.tolist() == [0, 1]


def test_grey_pictures_have_one_channel_unless_one_is_coloured(pets):
    for path in pets.rglob("*.png"):
        Image.open(path).convert("L").save(path)
    assert load_dataset("pets", pets.parent, "cat").input_shape == (1, 4, 6)
    Image.new("RGB", (6, 4), "red").save(pets / "test" / "cat" / "0.png")
    assert load_dataset("pets", pets.parent, "cat").input_shape == (3, 4, 6)


def test_hidden_files_are_passed_over(pets):
    (pets / "train" / "cat" / ".DS_Store").write_bytes(b"x")
    assert len(load_dataset("pets", pets.parent, "cat").x_test) == 4


def test_a_folder_needs_its_sensitive_class_named(pets):
    text = message(pets, None)
    assert "cat (0), dog (1)" in text and "--sensitive CLASS" in text


def test_unreadable_pictures_are_named(pets):
    path = pets / "train" / "dog" / "2.png"
    whole = path.read_bytes()
    for content in (b"", b"not a picture", whole[:40], whole[: len(whole) - 30]):
        path.write_bytes(content)
        text = message(pets)
        assert "cannot read the picture" in text and "2.png" in text and "repair or remove" in text


def test_formats_that_start_other_programs_are_refused(pets):
    (pets / "train" / "dog" / "2.png").write_bytes(
        b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 6 4\nshowpage\n"
    )
    assert "cannot read the picture" in message(pets)


def test_pictures_of_another_size_are_named(pets):
    Image.new("RGB", (5, 5)).save(pets / "test" / "dog" / "1.png")
    text = message(pets)
    assert "1.png" in text and "5x5" in text and "6x4" in text


def png_header(width: int, height: int) -> bytes:
    """A PNG that declares a size and holds hardly any pixels."""
    chunk = b"IHDR" + struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    start = b"\x89PNG\r\n\x1a\n" + struct.pack(">I", 13) + chunk + struct.pack(">I", zlib.crc32(chunk))
    return start + struct.pack(">I", 4) + b"IDAT" + b"\0" * 8


@pytest.mark.parametrize("side", [5_000, 10_000, 60_000])
def test_decompression_bombs_are_refused_from_their_header(pets, side):
    (pets / "train" / "cat" / "0.png").write_bytes(png_header(side, side))
    text = message(pets)
    assert "0.png" in text and ("at most 16777216" in text or "decompression bomb" in text)


def test_all_pictures_together_must_fit_in_memory(pets, monkeypatch):
    monkeypatch.setattr("bench.data.raw.memory_limit", lambda: 1000)
    monkeypatch.setattr("bench.data.folders._decode", lambda *_: pytest.fail("decoded before the check"))
    assert "limit" in message(pets)


def test_links_that_lead_out_of_the_folder_are_refused(pets, tmp_path):
    outside = tmp_path / "private.png"
    Image.new("RGB", (6, 4)).save(outside)
    (pets / "test" / "cat" / "2.png").symlink_to(outside)
    assert "leads out of" in message(pets)


def test_a_linked_class_folder_is_refused_too(pets, tmp_path):
    (pets / "test" / "dog").rename(tmp_path / "elsewhere")
    (pets / "test" / "dog").symlink_to(tmp_path / "elsewhere")
    assert "leads out of" in message(pets)


def test_pipes_are_refused_instead_of_waited_for(pets):
    os.mkfifo(pets / "train" / "cat" / "9.png")
    assert "not a regular file" in message(pets)


def test_sixteen_bit_pictures_are_refused(pets):
    Image.fromarray(np.zeros((4, 6), np.uint16)).save(pets / "train" / "cat" / "0.png")
    assert "8-bit" in message(pets)


@pytest.mark.parametrize("case", ["no test", "one class", "other classes", "empty class"])
def test_wrong_layouts_are_explained(pets, case):
    if case == "no test":
        (pets / "test").rename(pets / "exam")
        assert "lacks the folder test/" in message(pets)
    elif case == "one class":
        (pets / "train" / "dog").rename(pets / "dog")
        assert "1 class folders" in message(pets)
    elif case == "other classes":
        (pets / "test" / "dog").rename(pets / "test" / "wolf")
        assert "cat, dog" in message(pets) and "cat, wolf" in message(pets)
    else:
        for path in (pets / "test" / "dog").iterdir():
            path.unlink()
        assert "is empty" in message(pets)
