"""Tables from .csv and .parquet: what becomes of their columns, and one line for what cannot be used."""

import dataclasses

import numpy as np
import pandas as pd
import pytest
from tables import mixed_table, write_csv
from undrawn import compare as undrawn

from bench.basics.errors import UsageError
from bench.certify.__main__ import main as certify
from bench.compare import main as compare
from bench.data import TableOptions, load_dataset, table_files
from bench.kept.rows import CURVE_KEY
from bench.kept.store import Store

OPTIONS = TableOptions("t.csv", "label")


@pytest.fixture
def frame():
    return mixed_table(400, share=0.2)


def load(frame, folder, sensitive="fraud", immutable=(), **changes):
    options = dataclasses.replace(OPTIONS, **changes)
    if options.file.endswith(".csv"):
        write_csv(frame, folder / options.file)
    else:
        frame.to_parquet(folder / options.file)
    return load_dataset("t", folder, sensitive, table=options, immutable=immutable)


def test_numbers_are_scaled_by_the_training_rows_and_clipped(frame, tmp_path):
    frame["part"] = np.where(np.arange(400) < 200, "train", np.where(np.arange(400) < 300, "val", "test"))
    frame.loc[350, "amount1"], frame.loc[351, "amount1"] = 1e6, -1e6
    data = load(frame, tmp_path, split_column="part")
    place = data.feature_names.index("amount1")
    train = frame["amount1"].to_numpy()[:200]
    expected = (frame["amount1"].to_numpy()[300:] - train.min()) / (train.max() - train.min())
    np.testing.assert_allclose(data.x_test[:, place], expected.clip(0, 1), atol=1e-6)
    assert (data.x_test[50, place], data.x_test[51, place]) == (1, 0)
    (column,) = [column for column in data.columns if column.name == "amount1"]
    assert (column.low, column.span) == pytest.approx((train.min(), np.ptp(train)))
    np.testing.assert_array_equal(data.y_test, frame["label"].to_numpy()[300:] == "fraud")


def test_categories_are_one_hot_and_fixed_unless_asked(frame, tmp_path):
    data = load(frame, tmp_path)
    names = np.array(data.feature_names)
    assert set(names[~data.mutable]) == {
        *("country=DE", "country=FR", "country=US"),
        *("packer=none", "packer=nsis", "packer=upx"),
        *("signed=False", "signed=True"),
    }
    onehot = data.x_train[:, [name.startswith("country=") for name in names]]
    assert set(np.unique(onehot)) == {0, 1} and (onehot.sum(axis=1) == 1).all()
    asked = load(frame, tmp_path, perturb_categorical=True)
    assert asked.mutable is None
    np.testing.assert_array_equal(asked.x_test, data.x_test)
    assert asked.sha256 != data.sha256  # the certificates differ, so the cells' keys must


def test_immutable_columns_are_fixed_too(frame, tmp_path):
    data = load(frame, tmp_path, immutable=("amount1", "imports"), perturb_categorical=True)
    fixed = {name for name, mutable in zip(data.feature_names, data.mutable, strict=True) if not mutable}
    assert fixed == {"amount1", "imports"}
    assert "amount1, imports" in data.account[-1]
    # Categories stay fixed beside those that are named.
    categories, more = load(frame, tmp_path).mutable, load(frame, tmp_path, immutable=("imports",)).mutable
    assert np.array_equal(np.array(data.feature_names)[categories & ~more], ["imports"])
    assert not (more & ~categories).any()


def test_immutable_works_for_named_features_of_any_table():
    data = load_dataset("breast_cancer", immutable=["mean radius"])
    assert data.mutable.sum() == 29 and not data.mutable[data.feature_names.index("mean radius")]


def test_the_drawn_split_depends_on_name_and_seed_and_keeps_the_shares(frame, tmp_path):
    one, same, other = load(frame, tmp_path), load(frame, tmp_path), load(frame, tmp_path, split_seed=1)
    np.testing.assert_array_equal(one.x_test, same.x_test)
    assert one.sha256 == same.sha256 != other.sha256
    assert len(one.y_train) + len(one.y_val) + len(one.y_test) == 400
    for part in ("y_train", "y_val", "y_test"):
        assert getattr(one, part).mean() == pytest.approx((frame["label"] == "fraud").mean(), abs=0.02)


def test_parquet_reads_like_csv(frame, tmp_path):
    data, again = load(frame, tmp_path), load(frame, tmp_path, file="t.parquet")
    np.testing.assert_array_equal(data.x_test, again.x_test)
    assert data.feature_names == again.feature_names


def test_no_row_is_in_two_parts(frame, tmp_path):
    data = load(frame, tmp_path)
    assert len(np.unique(np.concatenate([data.x_train, data.x_val, data.x_test]), axis=0)) == len(frame)


def test_semicolons_and_a_byte_order_mark(frame, tmp_path):
    frame.to_csv(tmp_path / "t.csv", index=False, sep=";", encoding="utf-8-sig")
    assert load_dataset("t", tmp_path, "fraud", table=OPTIONS).feature_names[0] == "amount0"


def test_missing_values_are_filled_on_request_from_training_rows(frame, tmp_path):
    frame["part"] = np.where(np.arange(400) < 300, "train", "test")
    whole = load(frame, tmp_path, split_column="part")
    frame.loc[390, "amount2"], frame.loc[391, "country"] = None, None
    data = load(frame, tmp_path, split_column="part", impute="median")
    # Validation rows are drawn from those called train; the median is that of the rest.
    place = data.feature_names.index("amount2")
    assert data.x_test[90, place] == pytest.approx(np.median(whole.x_train[:, place]), abs=1e-6)
    countries = [name.startswith("country=") for name in data.feature_names]
    assert data.x_test[91, countries].sum() == 1


def test_categories_the_training_rows_lack_are_all_zero(frame, tmp_path):
    frame["part"] = np.where(np.arange(400) < 300, "train", "test")
    frame.loc[399, "country"] = "XX"
    data = load(frame, tmp_path, split_column="part")
    assert not data.x_test[-1, [name.startswith("country=") for name in data.feature_names]].any()


def test_more_classes_are_one_against_the_rest(frame, tmp_path):
    frame.loc[:50, "label"] = "odd"
    data = load(frame, tmp_path)
    assert data.classes == ("fraud", "not fraud")


@pytest.mark.parametrize("dtype", ["int64", "float64"])
def test_of_zero_and_one_the_one_is_sensitive_unless_told_otherwise(dtype, frame, tmp_path):
    fraud = frame["label"] == "fraud"
    frame["label"] = fraud.astype(dtype)
    frame["part"] = np.where(np.arange(400) < 300, "train", "test")
    for sensitive, classes, place in ((None, ("1", "0"), 1), ("1", ("1", "0"), 1), ("0", ("0", "1"), 0)):
        data = load(frame, tmp_path, sensitive, split_column="part", file="t.parquet")
        assert data.classes == classes and data.place == place
        np.testing.assert_array_equal(data.y_test == 1, (fraud if place else ~fraud).to_numpy()[300:])


def text_in_numbers(frame):
    frame["amount2"] = frame["amount2"].astype(object)
    frame.loc[[17, 30], "amount2"] = ["n/k", "?"]


def holes(frame):
    frame.loc[[5, 9], "amount3"] = np.nan


def endless(frame):
    frame.loc[7, "amount3"] = np.inf


def three_classes(frame):
    frame.loc[:3, "label"] = "odd"


def identifiers(frame):
    frame["id"] = [f"row-{place}" for place in range(len(frame))]


def missing_label(frame):
    frame.loc[3, "label"] = None


def nothing_varies(frame):
    frame[[name for name in frame.columns if name != "label"]] = 1.0


def only_categories(frame):
    for name in [name for name in frame if name.startswith(("am", "im"))]:
        del frame[name]


def decimal_commas(frame):
    frame["amount2"] = frame["amount2"].map(lambda value: f"{value:.3f}".replace(".", ","))


def raw_bytes(frame):
    frame["amount2"] = [b"\xff\x00"] * len(frame)


def list_labels(frame):
    frame["label"] = [[1]] * len(frame)


BAD = {
    "drop_target": (None, {"drop": ("label",)}, "--drop 'label'", "--target"),
    "commas": (decimal_commas, {}, "'amount2'", "numbers with commas", "decimal point"),
    "bytes": (raw_bytes, {"file": "t.parquet"}, "'amount2'", "holds bytes values"),
    "lists": (list_labels, {"file": "t.parquet"}, "'label'", "allowed are numbers and texts"),
    "target": (None, {"target": "lable"}, "'lable'", "'label'"),
    "drop": (None, {"drop": ("amount9",)}, "--drop 'amount9'", "amount0"),
    "immutable": (None, {"immutable": ("import",)}, "--immutable 'import'", "did you mean 'imports'"),
    "all_fixed": (
        only_categories,
        {},
        "no column",
        "--perturb-categorical",
    ),
    "constant": (nothing_varies, {}, "one value only", "nothing to learn from"),
    "text": (text_in_numbers, {}, "'amount2'", "'n/k' in row 18"),
    "holes": (holes, {}, "'amount3'", "2 missing values, the first in row 6"),
    "endless": (endless, {}, "'amount3'", "infinite value in row 8"),
    "three_classes": (three_classes, {"sensitive": None}, "fine, fraud, odd", "--sensitive CLASS"),
    "sensitive": (None, {"sensitive": "frod"}, "'frod'", "did you mean 'fraud'"),
    "continuous": (None, {"target": "amount1"}, "400 different values", "2 to 100 classes"),
    "identifiers": (identifiers, {}, "'id'", "400 categories"),
    "missing_label": (missing_label, {}, "'label'", "1 missing values"),
    "split": (None, {"split_column": "country"}, "'country'", "train, val and test"),
}


@pytest.mark.parametrize("name", BAD)
def test_what_cannot_be_used_is_named_in_one_line(name, frame, tmp_path):
    spoil, changes, *parts = BAD[name]
    if spoil is not None:
        spoil(frame)
    with pytest.raises(UsageError) as caught:
        load(frame, tmp_path, **changes)
    assert "\n" not in str(caught.value)
    for part in parts:
        assert part in str(caught.value)


FILES = {
    "empty.csv": (b"", "damaged"),
    "header.csv": (b"a,b,label\n", "no rows"),
    "ragged.csv": (b"a,b,label\n1,2,fine\n1,2,3,4,5,fraud\n", "line 3 of"),
    "first.csv": (b"a,b,label\n1,2,3,fine\n1,2,fraud\n", "line 2 of"),
    "commas.csv": (b"a,b,label\n0,5,0,7,fine\n0,4,0,1,fraud\n", "5 cells, its header names 3 columns"),
    "stray.csv": (
        b"a,b,label\n1,2,fine\n1,2,fraud" + b",3" * 20_000 + b"\n",
        "more than 10,000 cells in line 3",
    ),
    "twice.csv": (b"a,a,label\n1,2,fine\n", "'a'"),
    "nameless.csv": (b"a,,label\n1,2,fine\n", "column 2"),
    "binary.csv": (bytes(range(256)) * 40, "zero bytes"),
    "latin.csv": ("größe,label\n1,a\n".encode("latin-1"), "no text in UTF-8 (byte 3)"),
    "wide.csv": (b"a," * 20_000 + b"label\n", "20,001 columns"),
    "not.parquet": (b"a,b\n1,2\n", "damaged"),
}


@pytest.mark.parametrize("name", FILES)
def test_damaged_files_are_one_line(name, tmp_path):
    content, part = FILES[name]
    (tmp_path / name).write_bytes(content)
    with pytest.raises(UsageError) as caught:
        load_dataset("t", tmp_path, "fraud", table=TableOptions(name, "label"))
    assert part in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize("separator", [",", ";", "\t", "|"])
def test_separators_are_those_of_the_header(separator, frame, tmp_path):
    expected = load(frame, tmp_path)
    frame.to_csv(tmp_path / "u.csv", index=False, sep=separator)
    found = load_dataset("t", tmp_path, "fraud", table=TableOptions("u.csv", "label"))
    np.testing.assert_array_equal(found.x_train, expected.x_train)


@pytest.mark.parametrize("block", [1, 5, 7, 1000])
def test_the_cells_of_every_line_are_counted_block_by_block(block, tmp_path, monkeypatch):
    monkeypatch.setattr(table_files, "BLOCK", block)
    monkeypatch.setattr(table_files, "MAX_COLUMNS", 6)
    path = tmp_path / "t.csv"
    path.write_text("a;b\n1;2\n\n;;;;;6\n3;4")
    assert table_files._measure(path) == (";", 2, 4)
    path.write_text("a;b\n1;2\n\n;;;;;6\n;;;;;;7\n3;4\n")
    with pytest.raises(UsageError, match="more than 6 cells in line 5"):
        table_files._measure(path)


@pytest.mark.parametrize("suffix", [".csv", ".parquet"])
def test_a_table_of_too_many_cells_is_refused_before_it_is_read(suffix, frame, tmp_path, monkeypatch):
    monkeypatch.setattr(table_files, "MAX_CELLS", 3000)
    monkeypatch.setattr(pd, "read_csv", None)
    with pytest.raises(UsageError, match=r"400 rows of 10 columns, 4,000 cells.*at most"):
        load(frame, tmp_path, file=f"t{suffix}")


@pytest.mark.parametrize(
    ("arguments", "part"),
    [
        (["--data", "t.csv", "--sensitive", "fraud"], "--target COLUMN"),
        (["--data", "t.csv", "--target", "lable", "--sensitive", "fraud"], "did you mean 'label'"),
        (["--data", "t.csv", "--target", "label"], "fine, fraud"),
        (["--data", "missing.csv", "--target", "label"], "does not exist"),
        (["--data", "t.csv", "--target", "label", "--datasets", "circles"], "do not go together"),
        (["--data", "t.xlsx", "--target", "label"], ".xlsx files are not read"),
        (["--data", ".", "--target", "label"], "--data '.' is none"),
        (["--datasets", "circles", "--target", "label"], "--target belongs to a table"),
        (["--datasets", "digits_38", "--immutable", "a"], "no named columns"),
        (
            ["--data", "t.csv", "--target", "label", "--split-column", "x", "--split-seed", "1"],
            "--split-seed",
        ),
    ],
)
def test_bad_options_end_with_exit_code_2_and_nothing_behind(
    arguments, part, frame, tmp_path, capsys, monkeypatch
):
    for name in ("t.csv", "t.xlsx"):
        write_csv(frame, tmp_path / name)
    monkeypatch.chdir(tmp_path)
    before = set(tmp_path.rglob("*"))
    assert compare([*arguments, "--methods", "fcnn"]) == 2
    message = capsys.readouterr().err
    assert part in message and message.count("\n") == 1
    assert set(tmp_path.rglob("*")) == before


SUITE = """
datasets = ["circles"]
[[methods]]
method = "fcnn"
settings.hidden = [12]
settings.train = { epochs = 4 }
[[methods]]
method = "crown"
settings.hidden = [8]
settings.train = { epochs = 2 }
"""


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("table")
    write_csv(mixed_table(600, share=0.2), folder / "t.csv")
    (folder / "small.toml").write_text(SUITE, encoding="utf-8")
    arguments = ["--suite", folder / "small.toml", "--data", folder / "t.csv", "--target", "label"]
    arguments += ["--sensitive", "fraud", "--immutable", "imports", "--norms", "l2", "linf", "--jobs", "1"]
    assert undrawn([*map(str, arguments), "--out", str(folder / "out")]) == 0
    return folder


def test_a_run_says_what_its_radii_mean_for_the_columns(run):
    units = pd.read_csv(run / "out" / "original_units.csv")
    summary = pd.read_csv(run / "out" / "summary.csv")
    columns = pd.read_csv(run / "out" / "columns.csv").set_index("column")
    assert set(units["column"]) == {f"amount{place}" for place in range(5)}  # imports is immutable
    assert not columns.loc["imports", "mutable"] and not columns.loc["country", "mutable"]
    merged = units.merge(summary, on=CURVE_KEY, suffixes=("", "_s"))
    assert len(merged) == len(units) > 0
    exact = merged["median_radius_s"] * columns.loc[merged["column"], "range"].to_numpy()
    assert (merged["median_change"] <= exact).all()
    np.testing.assert_allclose(merged["median_change"], exact)
    np.testing.assert_allclose(merged["percent_of_range"], 100 * merged["median_radius_s"])


def test_a_run_on_a_table_can_be_attacked_and_only_mutable_columns_move(run):
    from bench.attacking.attacks import AttackSettings
    from bench.attacking.targets import FinishedRun
    from bench.falsify import main as falsify

    arguments = [str(run / "out"), "--data-dir", str(run), "--limit", "10", "--bracket", "10"]
    assert falsify(arguments) == 0
    record, radii, _ = Store(run / "out").read_run()
    finished = FinishedRun(Store(run / "out"), record["configuration"], run)
    rows = radii[(radii["method"] == "fcnn") & (radii["norm"] == "linf") & (radii["outcome"] == "certified")]
    rows = rows[rows["certificate"] == rows["certificate"].iloc[0]]
    rows = rows[rows["operating_point"] == "balanced"]
    curve = rows.iloc[0][[*CURVE_KEY, "seed"]].to_dict()
    target = dataclasses.replace(finished.target(rows, curve), radius=finished.target(rows, curve).radius * 3)
    points, _ = target.attack(AttackSettings(), 0)
    moved = (points != target.x).any(dim=0).numpy()
    mutable = finished.data("t").mutable
    assert moved[mutable].any() and not moved[~mutable].any()
    assert target.failures(points).any()  # three times the radius is too far for some


def test_the_same_command_again_computes_nothing(run, capsys):
    stamp = {path: path.stat().st_mtime_ns for path in (run / "out" / "cells").rglob("*")}
    arguments = ["--suite", run / "small.toml", "--data", run / "t.csv", "--target", "label"]
    arguments += ["--sensitive", "fraud", "--immutable", "imports", "--norms", "l2", "linf", "--jobs", "1"]
    assert compare([*map(str, arguments), "--out", str(run / "out")]) == 0
    assert "In the columns' own units" in capsys.readouterr().out
    assert {path: path.stat().st_mtime_ns for path in (run / "out" / "cells").rglob("*")} == stamp


def test_certify_takes_a_table(run, capsys):
    import torch

    from fcnn import ConvexMLP, FeatureConvexClassifier
    from fcnn.checkpoints import save_classifier

    data = load_dataset("t", run, "fraud", table=OPTIONS)
    torch.manual_seed(0)
    save_classifier(
        FeatureConvexClassifier(ConvexMLP(data.input_shape[0], (8,)), threshold=-5.0), run / "net.safetensors"
    )
    arguments = ["--model", run / "net.safetensors", "--data", run / "t.csv", "--target", "label"]
    arguments += ["--sensitive", "fraud", "--norms", "linf", "--certificates", "closed_form"]
    arguments += ["--inputs", "20", "--out", run / "certified"]
    assert certify(list(map(str, arguments))) == 0
    said = capsys.readouterr().out
    assert "Categorical columns: 3" in said and "% of the range of `amount0`" in said
    assert (run / "certified" / "original_units.csv").exists()
