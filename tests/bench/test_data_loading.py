"""Data sets by name: embedded ones, the sensitive class, the validation split, registered packages."""

from importlib.metadata import EntryPoint

import numpy as np
import pytest

from bench.basics.errors import UsageError
from bench.data import Dataset, list_datasets, load_dataset, loading
from bench.data.raw import RawData

EMBEDDED = ("digits_38", "breast_cancer", "circles")


@pytest.fixture(autouse=True)
def _no_data_folder(monkeypatch, tmp_path):
    monkeypatch.delenv("BENCH_DATA_DIR", raising=False)
    monkeypatch.setenv("BENCH_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.setenv("BENCH_MIRROR", "http://127.0.0.1:9")  # nothing listens there


def arrays(labels=(0, 1), train=30, test=10, seed=0):
    """Random 4x4 grey pictures in the form of an .npz; labels take turns."""
    rng = np.random.default_rng(seed)
    made = {}
    for split, count in (("train", train), ("test", test)):
        made[f"x_{split}"] = rng.integers(0, 256, (count, 4, 4), dtype=np.uint8)
        made[f"y_{split}"] = np.resize(np.array(labels, dtype=np.int64), count)
    return made


def line(error) -> str:
    """The message of a UsageError, which must be one line."""
    text = str(error.value)
    assert "\n" not in text
    return text


@pytest.mark.parametrize("name", EMBEDDED)
def test_embedded_sets_hold_the_promises_of_every_data_set(name):
    data = load_dataset(name)
    for split in ("train", "val", "test"):
        x, y = getattr(data, f"x_{split}"), getattr(data, f"y_{split}")
        assert x.dtype == np.float32 and y.dtype == np.int64
        assert x.min() >= 0 and x.max() <= 1
        assert set(np.unique(y)) == {0, 1} and len(x) == len(y)
        assert x.shape[1:] == data.input_shape
        assert x.flags.c_contiguous
    again = load_dataset(name)
    assert again.sha256 == data.sha256
    assert np.array_equal(again.x_train, data.x_train)


def test_embedded_sets_are_what_they_say():
    digits, cancer, circles = (load_dataset(name) for name in EMBEDDED)
    assert digits.input_shape == (1, 8, 8) and digits.classes == ("3", "8")
    assert cancer.input_shape == (30,) and cancer.classes == ("malignant", "benign")
    assert cancer.feature_names[0] == "mean radius"
    total = sum(int(getattr(cancer, f"y_{split}").sum()) for split in ("train", "val", "test"))
    assert total == 212  # malignant tumours in the Wisconsin data
    radius = np.linalg.norm(circles.x_test - 0.5, axis=1)
    assert radius[circles.y_test == 1].min() > radius[circles.y_test == 0].max()


def test_no_example_is_in_two_splits():
    """Circles has no repeats, so equal rows would be the same example."""
    data = load_dataset("circles")
    rows = np.concatenate([data.x_train, data.x_val, data.x_test])
    assert len(np.unique(rows, axis=0)) == len(rows) == 1500


def test_tables_are_scaled_with_the_training_part_alone():
    data = load_dataset("breast_cancer")
    assert np.all(data.x_train.min(axis=0) == 0) and np.all(data.x_train.max(axis=0) == 1)
    assert not np.all(data.x_test.max(axis=0) == 1), "test values set the range"


def test_validation_split_is_stratified_and_depends_on_the_name_only(tmp_path):
    made = arrays(train=1000)
    made["y_train"] = (np.arange(1000) % 4 == 0).astype(np.int64)
    for name in ("one", "two"):
        np.savez(tmp_path / f"{name}.npz", **made)
    one, same, two = (load_dataset(name, tmp_path) for name in ("one", "one", "two"))
    assert len(one.y_val) == 200 and one.y_val.sum() == 50  # 20 % of a small set, a quarter sensitive
    assert np.array_equal(one.x_val, same.x_val)
    assert not np.array_equal(one.x_val, two.x_val)
    assert one.sha256 != two.sha256


def test_validation_share_of_larger_sets_and_minimum(tmp_path):
    np.savez(tmp_path / "large.npz", **arrays(train=2000))
    np.savez(tmp_path / "tiny.npz", **arrays(train=4, test=2))
    assert len(load_dataset("large", tmp_path).y_val) == 200
    assert np.bincount(load_dataset("tiny", tmp_path).y_val).tolist() == [1, 1]


def test_a_class_with_one_training_example_is_refused(tmp_path):
    made = arrays(train=10)
    made["y_train"] = np.array([1] + [0] * 9)
    np.savez(tmp_path / "toy.npz", **made)
    with pytest.raises(UsageError) as error:
        load_dataset("toy", tmp_path)
    assert "one training example only" in line(error)


def test_sensitive_class_by_name_and_by_id(tmp_path):
    np.savez(tmp_path / "toy.npz", **arrays((3, 7)), classes=np.array(["good", "bad"]))
    by_name, by_id = load_dataset("toy", tmp_path, "bad"), load_dataset("toy", tmp_path, "7")
    assert by_name.classes == ("bad", "good") and by_name.sha256 == by_id.sha256
    assert by_name.y_test.tolist() == [0, 1] * 5
    assert load_dataset("toy", tmp_path, 3).y_test.tolist() == [1, 0] * 5


def test_labels_zero_and_one_need_no_sensitive_class(tmp_path):
    np.savez(tmp_path / "toy.npz", **arrays((0, 1)))
    assert load_dataset("toy", tmp_path).classes == ("1", "0")


@pytest.mark.parametrize(
    ("labels", "sensitive", "parts"),
    [
        ((3, 7), None, ["which class of 'toy'", "3, 7", "--sensitive CLASS"]),
        ((0, 1, 2), None, ["0, 1, 2", "toy:A-B"]),
        ((3, 7), "8", ["unknown class '8'", "3, 7", "--sensitive CLASS"]),
    ],
)
def test_missing_or_wrong_sensitive_class_is_named(tmp_path, labels, sensitive, parts):
    np.savez(tmp_path / "toy.npz", **arrays(labels))
    with pytest.raises(UsageError) as error:
        load_dataset("toy", tmp_path, sensitive)
    assert all(part in line(error) for part in parts)


def test_one_class_against_the_rest(tmp_path):
    np.savez(tmp_path / "toy.npz", **arrays((0, 1, 2)))
    data = load_dataset("toy", tmp_path, "2")
    assert data.classes == ("2", "not 2")
    assert data.y_test.tolist() == [0, 0, 1, 0, 0, 1, 0, 0, 1, 0]


def test_two_of_many_classes_the_first_is_sensitive(tmp_path):
    made = arrays((0, 1, 2))
    np.savez(tmp_path / "toy.npz", **made, classes=np.array(["a", "b-c", "d"]))
    data = load_dataset("toy:2-0", tmp_path)
    kept = made["y_test"] != 1
    assert data.classes == ("d", "a")
    assert np.array_equal(data.x_test[:, 0], made["x_test"][kept] / np.float32(255))
    assert data.y_test.tolist() == (made["y_test"][kept] == 2).astype(int).tolist()
    assert load_dataset("toy:b-c-a", tmp_path).classes == ("b-c", "a")


@pytest.mark.parametrize("pair", ["0", "0-9", "0-0"])
def test_bad_pairs_are_refused(tmp_path, pair):
    np.savez(tmp_path / "toy.npz", **arrays((0, 1, 2)))
    with pytest.raises(UsageError, match="0, 1, 2") as error:
        load_dataset(f"toy:{pair}", tmp_path)
    line(error)


def test_a_known_pair_is_cut_from_the_larger_file(tmp_path):
    """mnist_38 from mnist.npz equals mnist_38.npz with the same examples."""
    made = arrays(range(10), train=200, test=100)
    np.savez(tmp_path / "mnist.npz", **made)
    cut = load_dataset("mnist_38", tmp_path)
    kept = {split: np.isin(made[f"y_{split}"], (3, 8)) for split in ("train", "test")}
    np.savez(tmp_path / "mnist_38.npz", **{key: value[kept[key[2:]]] for key, value in made.items()})
    assert cut.classes == ("3", "8") and cut.title == "MNIST 3-8"
    assert load_dataset("mnist_38", tmp_path).sha256 == cut.sha256
    assert load_dataset("mnist_38", tmp_path, "8").classes == ("8", "3")


@pytest.mark.parametrize(
    "name",
    ["", "..", "../toy", "a/b", "a\\b", "/etc/passwd", ".hidden", "a..b", "a\x00b", "a\nb", "x" * 300, 7],
)
def test_names_that_could_leave_the_folder_are_refused(tmp_path, name):
    np.savez(tmp_path / "toy.npz", **arrays())
    with pytest.raises(UsageError, match="bad data set name") as error:
        load_dataset(name, tmp_path)
    line(error)


def test_unknown_name_suggests_and_lists(tmp_path):
    np.savez(tmp_path / "toys.npz", **arrays())
    with pytest.raises(UsageError) as error:
        load_dataset("toy", tmp_path)
    text = line(error)
    assert "unknown data set 'toy'" in text and "did you mean 'toys'" in text
    assert "digits_38" in text and "toy.npz" in text


def test_known_set_without_download_says_where_to_put_it(tmp_path):
    with pytest.raises(UsageError) as error:
        load_dataset("malware_benign_128")
    assert "malware_benign_128.npz" in line(error) and "--data-dir" in line(error)


def test_missing_empty_and_mistaken_data_folders(tmp_path, monkeypatch):
    (tmp_path / "empty").mkdir()
    (tmp_path / "file").write_text("x")
    for name, part in (("gone", "does not exist"), ("empty", "is empty"), ("file", "not a folder")):
        with pytest.raises(UsageError) as error:
            load_dataset("digits_38", tmp_path / name)
        assert part in line(error) and name in line(error) and "--data-dir" in line(error)
    monkeypatch.setenv("BENCH_DATA_DIR", str(tmp_path / "gone"))
    with pytest.raises(UsageError, match="BENCH_DATA_DIR"):
        load_dataset("digits_38")


def test_data_folder_from_the_environment(tmp_path, monkeypatch):
    np.savez(tmp_path / "toy.npz", **arrays())
    monkeypatch.setenv("BENCH_DATA_DIR", str(tmp_path))
    assert load_dataset("toy").source == str(tmp_path / "toy.npz")


def test_list_datasets_names_known_and_found_sets(tmp_path):
    np.savez(tmp_path / "toy.npz", **arrays())
    listed = dict(list_datasets(tmp_path))
    assert {*EMBEDDED, "mnist_38", "cifar10_catsdogs", "toy"} <= set(listed)
    assert all(text and "\n" not in text for text in listed.values())


# Functions that stand for another package's entry points.
def good_arrays():
    return {**arrays((0, 1)), "classes": ["calm", "storm"]}


def wrong_type():
    return [1, 2]


def failing():
    raise RuntimeError("no\nluck")


def ready_made():
    made = RawData(**arrays((0, 1)), classes=("calm", "storm"), origin="there")
    return loading.assemble(made, "ready_made", "Ready", 1)


@pytest.fixture
def registered(monkeypatch):
    entries = [
        EntryPoint(name, f"{__name__}:{name}", loading.GROUP)
        for name in ("good_arrays", "wrong_type", "failing", "ready_made")
    ]
    monkeypatch.setattr(loading, "entry_points", lambda group: entries if group == loading.GROUP else [])


def test_other_packages_can_register_data_sets(registered):
    data = load_dataset("good_arrays")
    assert isinstance(data, Dataset) and data.classes == ("storm", "calm")
    assert load_dataset("ready_made").title == "Ready"
    assert "good_arrays" in dict(list_datasets())


@pytest.mark.parametrize(
    ("name", "parts"),
    [
        ("wrong_type", ["'wrong_type'", "returned list", "x_train"]),
        ("failing", ["'failing'", "RuntimeError", "repair or uninstall"]),
        ("ready_made:storm-calm", ["ready-made", "without :A-B"]),
    ],
)
def test_registered_data_sets_that_fail_are_named(registered, name, parts):
    with pytest.raises(UsageError) as error:
        load_dataset(name)
    assert all(part in line(error) for part in parts)


def test_a_class_that_an_embedded_set_does_not_have_names_the_set():
    with pytest.raises(UsageError, match=r"unknown class '9' of digits_38 \(embedded\).*: choose from 3, 8"):
        load_dataset("digits_38", sensitive="9")
