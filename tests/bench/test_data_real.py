"""The real data sets, where BENCH_DATA_DIR has them."""

import gzip
import hashlib
import struct

import numpy as np
import pytest

from bench.data import load_dataset
from bench.data.downloads import read_idx

pytestmark = pytest.mark.data

# name: shape of an input, training and validation examples together, test examples, sensitive test examples
SETS = {
    "mnist_38": ((1, 28, 28), 11_982, 1_984, 1_010),
    "fashion_mnist_shirts": ((1, 28, 28), 12_000, 2_000, 1_000),
    "cifar10_catsdogs": ((3, 32, 32), 10_000, 2_000, 1_000),
    "malware_benign_128": ((1, 128, 128), 1_128, 282, 83),
}


def load(name, data_dir):
    if not (data_dir / f"{name}.npz").exists():
        pytest.skip(f"{name}.npz is not there")
    return load_dataset(name, data_dir)


@pytest.mark.parametrize("name", SETS)
def test_counts_and_ranges(name, data_dir):
    shape, train, test, sensitive = SETS[name]
    data = load(name, data_dir)
    assert data.input_shape == shape
    assert len(data.x_train) + len(data.x_val) == train
    assert len(data.x_test) == test and int(data.y_test.sum()) == sensitive
    assert data.x_train.min() == 0 and data.x_train.max() == 1
    share = data.y_train.mean()
    assert abs(data.y_val.mean() - share) < 1 / len(data.y_val)


def test_the_pair_cut_from_mnist_is_mnist_38(data_dir):
    if not has_mnist(data_dir):
        pytest.skip("mnist.npz is not there")
    pair, whole = load("mnist_38", data_dir), load_dataset("mnist:3-8", data_dir)
    assert np.array_equal(pair.x_test, whole.x_test) and np.array_equal(pair.y_test, whole.y_test)
    assert len(pair.x_val) == len(whole.x_val)


def has_mnist(data_dir):
    return (data_dir / "mnist.npz").exists()


def test_idx_reader_on_the_published_test_images(data_dir, tmp_path):
    """The IDX file rebuilt from the arrays has MNIST's own checksum, so the reader is tested on the real thing."""
    if not has_mnist(data_dir):
        pytest.skip("mnist.npz is not there")
    with np.load(data_dir / "mnist.npz") as arrays:
        images = arrays["x_test"]
    content = struct.pack(">HBB3I", 0, 8, 3, *images.shape) + images.tobytes()
    assert hashlib.sha256(content).hexdigest() == (
        "0fa7898d509279e482958e8ce81c8e77db3f2f8254e26661ceb7762c4d494ce7"
    )
    (tmp_path / "images.gz").write_bytes(gzip.compress(content, 1))
    assert np.array_equal(read_idx(tmp_path / "images.gz"), images)


@pytest.mark.slow
def test_photographs_from_a_folder(data_dir):
    if not (data_dir / "catsdogs_224").is_dir():
        pytest.skip("catsdogs_224/ is not there")
    data = load_dataset("catsdogs_224", data_dir)
    assert data.input_shape == (3, 224, 224) and data.classes == ("cat", "dog")
    assert len(data.x_train) == 2_700 and len(data.x_val) == 300 and len(data.x_test) == 600
    assert data.y_test.sum() == 300
