"""Hostile and damaged .npz files: each gives one clear line, and no code in them ever runs."""

import io
import os
import pickle
import zipfile

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.lib import format as npy

from bench.basics.errors import UsageError
from bench.data import load_dataset


def good():
    rng = np.random.default_rng(0)
    return {
        "x_train": rng.integers(0, 256, (20, 4, 4), dtype=np.uint8),
        "y_train": np.arange(20) % 2,
        "x_test": rng.integers(0, 256, (6, 4, 4), dtype=np.uint8),
        "y_test": np.arange(6) % 2,
    }


def message(folder) -> str:
    with pytest.raises(UsageError) as error:
        load_dataset("toy", folder)
    text = str(error.value)
    assert "\n" not in text and "toy.npz" in text
    return text


def header(shape, descr="|u1") -> bytes:
    stream = io.BytesIO()
    npy.write_array_header_1_0(stream, {"descr": descr, "fortran_order": False, "shape": shape})
    return stream.getvalue()


def write_members(path, **raw: bytes):
    """Write an .npz whose members are good arrays, some replaced by raw bytes."""
    np.savez(path, **{key: value for key, value in good().items() if key not in raw})
    with zipfile.ZipFile(path, "a") as archive:
        for key, data in raw.items():
            archive.writestr(f"{key}.npy", data)


@pytest.mark.parametrize(
    ("shape", "expected"),
    [((4, 4), (1, 4, 4)), ((4, 5, 3), (3, 4, 5)), ((4, 4, 1), (1, 4, 4)), ((7,), (7,))],
)
def test_shapes_become_channels_first(tmp_path, shape, expected):
    made = good()
    rng = np.random.default_rng(1)
    for split, count in (("train", 20), ("test", 6)):
        made[f"x_{split}"] = rng.integers(0, 256, (count, *shape), dtype=np.uint8)
    np.savez_compressed(tmp_path / "toy.npz", **made)
    data = load_dataset("toy", tmp_path)
    assert data.input_shape == expected
    wanted = made["x_test"] / 255
    if len(shape) == 3:
        assert np.allclose(data.x_test[:, -1], wanted[..., -1], rtol=0, atol=1e-7)
    else:
        assert np.allclose(data.x_test.reshape(wanted.shape), wanted, rtol=0, atol=1e-7)


@pytest.mark.parametrize("dtype", [bool, np.uint8, np.int16])
def test_labels_of_any_kind_of_number_are_the_same_two_classes(tmp_path, dtype):
    np.savez(
        tmp_path / "toy.npz", **good() | {f"y_{s}": good()[f"y_{s}"].astype(dtype) for s in ("train", "test")}
    )
    data = load_dataset("toy", tmp_path)
    assert data.classes == ("1", "0")  # the sensitive one first
    assert data.y_test.tolist() == [0, 1, 0, 1, 0, 1]


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_floats_in_the_unit_interval_are_kept(tmp_path, dtype):
    made = good() | {f"x_{split}": (good()[f"x_{split}"] / 255).astype(dtype) for split in ("train", "test")}
    np.savez(tmp_path / "toy.npz", **made)
    assert np.array_equal(load_dataset("toy", tmp_path).x_test[:, 0], made["x_test"].astype(np.float32))


def with_value(key, value):
    x = good()[key] / 255
    x[2, 1, 1] = value
    return {key: x}


BAD = {
    "NaN": (with_value("x_test", np.nan), ["x_test", "NaN"]),
    "infinite": (with_value("x_train", np.inf), ["x_train", "infinite"]),
    "negative": (with_value("x_train", -0.25), ["x_train", "-0.25", "[0, 1]"]),
    "too large": (with_value("x_test", 200.0), ["x_test", "200", "[0, 1]"]),
    "integers": ({"x_train": np.ones((20, 4, 4), np.int32)}, ["x_train", "int32", "uint8"]),
    "texts": ({"x_train": np.full((20, 4, 4), "a")}, ["x_train", "uint8"]),
    "a single number": ({"x_train": np.float32(0)}, ["x_train", "()", "(N, H, W)"]),
    "one dimension": ({"x_train": np.ones(20, np.uint8)}, ["x_train", "(20,)", "(N, H, W)"]),
    "five dimensions": ({"x_test": np.ones((6, 1, 1, 1, 1), np.uint8)}, ["x_test", "(N, H, W, C)"]),
    "channels first": ({"x_train": np.ones((20, 3, 8, 8), np.uint8)}, ["8 channels", "transpose"]),
    "other shape in test": ({"x_test": np.ones((6, 5, 5), np.uint8)}, ["(4, 4)", "(5, 5)"]),
    "shorter labels": ({"y_train": np.arange(19) % 2}, ["x_train and y_train", "20 and 19"]),
    "empty test": ({"x_test": np.ones((0, 4, 4), np.uint8), "y_test": np.arange(0)}, ["y_test", "empty"]),
    "no pixels": ({"x_train": np.ones((20, 0, 4), np.uint8)}, ["x_train", "empty"]),
    "one class": ({"y_train": np.ones(20, int)}, ["one class only", "two"]),
    "class not in test": ({"y_test": np.zeros(6, int)}, ["class 1", "missing from y_test"]),
    "class not in train": ({"y_test": np.arange(6) % 3}, ["class 2", "missing from y_train"]),
    "labels as floats": ({"y_train": np.arange(20) % 2 / 1.0}, ["y_train", "float64", "integer"]),
    "labels as column": ({"y_test": np.ones((6, 1), int)}, ["y_test", "(6, 1)"]),
    "too many names": ({"classes": np.array(["a", "b", "c"])}, ["3 names for 2 labels"]),
    "repeated names": ({"classes": np.array(["a", "a"])}, ["repeats a name"]),
    "numbers as names": ({"classes": np.arange(2)}, ["classes", "list of texts"]),
    "line break in name": ({"classes": np.array(["a\nb", "c"])}, ["classes", "unprintable"]),
    "wrong feature names": ({"feature_names": np.array(["a"])}, ["feature_names", "16 features"]),
    "very long names": ({"classes": np.array(["a" * 500, "b"])}, ["classes", "200 characters"]),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_contents_are_refused(tmp_path, case):
    replaced, parts = BAD[case]
    np.savez(tmp_path / "toy.npz", **(good() | replaced))
    text = message(tmp_path)
    assert all(part in text for part in parts), text


@pytest.mark.parametrize("missing", ["x_train", "y_train", "x_test", "y_test"])
def test_a_missing_array_is_named(tmp_path, missing):
    np.savez(tmp_path / "toy.npz", **{key: value for key, value in good().items() if key != missing})
    assert f"lacks {missing};" in message(tmp_path)


@pytest.mark.parametrize("share", [0.0, 0.3, 0.9, 0.999])
def test_truncated_files(tmp_path, share):
    path = tmp_path / "toy.npz"
    np.savez_compressed(path, **good())
    whole = path.read_bytes()
    path.write_bytes(whole[: int(share * len(whole))])
    assert "cannot read" in message(tmp_path) and "damaged or cut off" in message(tmp_path)


def test_one_flipped_byte_in_the_pixels_is_noticed(tmp_path):
    path = tmp_path / "toy.npz"
    np.savez(path, **good())
    content = bytearray(path.read_bytes())
    content[content.index(good()["x_train"].tobytes()) + 100] ^= 1
    path.write_bytes(content)
    assert "cannot read" in message(tmp_path)


def test_files_that_are_no_archive(tmp_path):
    (tmp_path / "toy.npz").write_bytes(b"not a zip file")
    assert "cannot read" in message(tmp_path)
    (tmp_path / "toy.npz").unlink()
    os.mkfifo(tmp_path / "toy.npz")
    assert "not a regular file" in message(tmp_path)


class Bomb:
    """Unpickling it makes a file: a sign that code from the data ran."""

    def __init__(self, mark):
        self.mark = mark

    def __reduce__(self):
        return os.mkdir, (str(self.mark),)


@pytest.mark.parametrize("key", ["x_train", "y_test", "classes"])
def test_pickled_objects_are_never_loaded(tmp_path, key):
    mark = tmp_path / "ran"
    objects = np.array([Bomb(mark)] * 6, dtype=object)
    np.savez(tmp_path / "toy.npz", **(good() | {key: objects}))
    text = message(tmp_path)
    assert key in text and "never loaded" in text
    assert not mark.exists()


def test_a_bare_pickle_is_never_loaded(tmp_path):
    mark = tmp_path / "ran"
    (tmp_path / "toy.npz").write_bytes(pickle.dumps(Bomb(mark)))
    write_members(tmp_path / "toys.npz", x_train=pickle.dumps(Bomb(mark)))
    assert "cannot read" in message(tmp_path)
    with pytest.raises(UsageError, match="cannot read"):
        load_dataset("toys", tmp_path)
    assert not mark.exists()


def test_a_header_that_promises_more_than_the_file_holds(tmp_path):
    write_members(tmp_path / "toy.npz", x_train=header((10**9, 32, 32)) + b"\0" * 64)
    assert "declares 1024000000000 bytes but the file holds 64" in message(tmp_path)


def test_a_small_file_that_unpacks_to_more_than_memory(tmp_path, monkeypatch):
    """A megabyte of zeros shrinks to a kilobyte; the limit looks at the megabyte, before reading it."""
    monkeypatch.setattr("bench.data.raw.memory_limit", lambda: 2**20)
    monkeypatch.setattr("bench.data.npz._read_array", lambda *_: pytest.fail("read before the check"))
    made = good() | {"x_train": np.zeros((20, 256, 256), np.uint8)}
    np.savez_compressed(tmp_path / "toy.npz", **made)
    assert (tmp_path / "toy.npz").stat().st_size < 10_000
    assert "GiB" in message(tmp_path) and "limit" in message(tmp_path)


def test_negative_and_absurd_shapes(tmp_path):
    for shape in ((-20, -4, 4), (2**70, 0, 4), (1,) * 100):
        write_members(tmp_path / "toy.npz", x_train=header(shape) + b"\0" * 320)
        message(tmp_path)


@settings(max_examples=40, deadline=None)
@given(
    key=st.sampled_from(["x_train", "y_train", "x_test", "y_test", "classes"]),
    shape=st.lists(st.integers(-3, 2**66), max_size=5).map(tuple),
    descr=st.sampled_from(
        ["|u1", "<f4", "<i8", "|O", "|V0", "<U0", "<U9", "|b1", "<c8", "<M8[s]", ">f8", "|S3"]
    ),
    body=st.binary(max_size=200),
)
def test_generated_headers_give_one_line(tmp_path_factory, key, shape, descr, body):
    folder = tmp_path_factory.mktemp("headers")
    write_members(folder / "toy.npz", **{key: header(shape, descr) + body})
    message(folder)


@settings(max_examples=40, deadline=None)
@given(cut=st.integers(0, 150), noise=st.binary(max_size=120))
def test_generated_noise_in_a_member_gives_one_line(tmp_path_factory, cut, noise):
    folder = tmp_path_factory.mktemp("noise")
    write_members(folder / "toy.npz", x_train=header((20, 4, 4))[:cut] + noise)
    message(folder)
