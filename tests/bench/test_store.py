"""The store keeps what was written or says that it cannot: byte flips, cut files, write errors, hostile names."""

import errno
import os
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from bench.basics import files
from bench.basics.errors import UsageError
from bench.basics.files import (
    DamagedFileError,
    plain,
    safe_name,
    seal,
    set_aside,
    unseal,
    write_atomic,
)
from bench.kept import rows
from bench.kept.rows import (
    RADII_COLUMNS,
    check_predictions,
    check_radii,
    from_parquet,
    to_parquet,
    without_timing,
)
from bench.kept.store import CellFolder, Store


def radii_frame(method: str = "fcnn", seed: int = 0, dataset: str = "digits", count: int = 5) -> pd.DataFrame:
    """Valid rows of one curve in one norm: one each of certified, infinite, misclassified, abstained, timeout."""
    pick = np.arange(count) % 5
    radius = np.where(pick == 0, 0.1 + np.arange(count) / 3, np.where(pick == 1, np.inf, np.nan))
    names = np.array(["certified", "certified", "misclassified", "abstained", "timeout"])
    return pd.DataFrame(
        {
            "dataset": dataset,
            "method": method,
            "certificate": "closed_form",
            "norm": "l2",
            "domain": "free",
            "operating_point": "balanced",
            "guarantee": "probabilistic",
            "alpha": 0.001,
            "draws": 10_000,
            "native": True,
            "calibrated_on": "validation",
            "calibration_others": 200,
            "seed": seed,
            "index": np.arange(count),
            "label": 1,
            "predicted": np.array([1, 1, 0, np.nan, 1])[pick],
            "outcome": names[pick],
            "radius": radius,
            "radius_upper": np.where(pick == 0, 99.0, np.nan),
            "seconds": 0.01,
            "norms_in_call": 1,
            "reason": np.where(pick == 4, "30 s were up", ""),
        }
    )


def predictions_frame(method: str = "fcnn", seed: int = 0, dataset: str = "digits") -> pd.DataFrame:
    rows = {"index": range(4), "label": [1, 1, 0, 0], "predicted": [1, None, 0, 1], "seconds": 0.0}
    rows |= {"operating_point": "balanced", "score": [0.5, None, -1.0, 2.0]}
    return pd.DataFrame({"dataset": dataset, "method": method, "seed": seed, **rows})


def fill(cell: CellFolder, key: str = "k", count: int = 5) -> None:
    identity = (cell.method, cell.seed, cell.dataset)
    state = {"weight": torch.arange(6.0).reshape(2, 3), "threshold": torch.tensor(0.5, dtype=torch.float64)}
    cell.write(
        key, radii_frame(*identity, count), predictions_frame(*identity), state, {"settings": {"a": 1}}
    )


@pytest.fixture
def cell(tmp_path: Path) -> CellFolder:
    cell = Store(tmp_path / "out").cell("digits", "fcnn", 0)
    fill(cell)
    return cell


def test_what_was_written_is_read_back_with_the_documented_types(cell: CellFolder) -> None:
    radii, predictions = cell.read()
    assert {name: str(dtype) for name, dtype in radii.dtypes.items()} == RADII_COLUMNS
    pd.testing.assert_frame_equal(radii, check_radii(radii_frame()))
    pd.testing.assert_frame_equal(predictions, check_predictions(predictions_frame()))
    assert radii["radius"].isna().tolist() == [False, False, True, True, True]
    assert radii["radius"][1] == np.inf and pd.isna(radii["predicted"][3])
    state = cell.read_state()
    assert torch.equal(state["weight"], torch.arange(6.0).reshape(2, 3))
    assert state["threshold"].dtype == torch.float64
    assert cell.record()["meta"] == {"settings": {"a": 1}}


@settings(max_examples=30, deadline=None)
@given(st.lists(st.floats(min_value=5e-324, allow_nan=False), min_size=1, max_size=20))
def test_radii_survive_the_file_to_the_last_bit(values: list[float]) -> None:
    frame = radii_frame(count=len(values)).assign(outcome="certified", predicted=1, reason="", radius=values)
    stored = from_parquet(to_parquet(check_radii(frame), RADII_COLUMNS), RADII_COLUMNS)
    assert stored["radius"].to_numpy(dtype=float).tobytes() == np.array(values).tobytes()


def test_rows_from_before_calls_were_told_from_norms_are_read_as_calls(monkeypatch) -> None:
    """Their seconds were a call's divided by its norms; a norm that the curve does not have was not in the call."""
    frame = pd.concat([radii_frame().assign(norm=norm) for norm in ("l1", "l2", "linf")])
    missing = {"outcome": "unsupported", "radius": np.nan, "radius_upper": np.nan, "reason": "no such norm"}
    frame.loc[frame["norm"] == "linf", list(missing)] = list(missing.values())
    today = check_radii(frame.assign(calibration_others=pd.NA))
    later = ("norms_in_call", "operating_point", "calibration_others")
    columns = {name: kind for name, kind in RADII_COLUMNS.items() if name not in later}
    monkeypatch.setattr(rows, "SCHEMA_VERSION", 1)
    read = from_parquet(to_parquet(today, columns), RADII_COLUMNS)
    shared = read["norm"] != "linf"
    assert (read.loc[shared, "seconds"] == 0.02).all() and (read.loc[shared, "norms_in_call"] == 2).all()
    assert (read.loc[~shared, "norms_in_call"] == 0).all()
    same = ["seconds", "norms_in_call"]
    pd.testing.assert_frame_equal(read.drop(columns=same), today.drop(columns=same))
    with pytest.raises(DamagedFileError, match="other columns"):
        from_parquet(
            to_parquet(today, {name: columns[name] for name in columns if name != "draws"}), RADII_COLUMNS
        )


def test_a_cell_is_finished_for_its_key_only_and_only_when_complete(cell: CellFolder) -> None:
    assert cell.finished("k") and not cell.finished("other")
    (cell.path / "radii.parquet").unlink()
    assert not cell.finished("k")
    fill(cell)
    (cell.path / "cell.json").unlink()
    assert not cell.finished("k")


def test_every_sampled_byte_flip_is_detected_and_set_aside(cell: CellFolder) -> None:
    rng = np.random.default_rng(0)
    names = ["radii.parquet", "predictions.parquet", "model.safetensors", "cell.json"]
    for trial in range(200):
        path = cell.path / names[trial % 4]
        intact = path.read_bytes()
        data = bytearray(intact)
        data[rng.integers(len(data))] ^= 1 << rng.integers(8)
        path.write_bytes(data)
        assert not cell.finished("k"), f"trial {trial}: a flipped bit in {path.name} was believed"
        assert not path.exists() and (cell.path / f"{path.name}.damaged-{1 + trial // 4}").exists()
        path.write_bytes(intact)
        assert cell.finished("k")


def test_a_damaged_cell_is_mended_by_writing_it_again(cell: CellFolder) -> None:
    (cell.path / "model.safetensors").write_bytes(b"\0" * 100)
    assert not cell.finished("k")
    fill(cell)
    assert cell.finished("k")


@pytest.mark.parametrize("data", [b"", b"PAR1", b"half", b"{}", b"[]", b"null", b'{"key": "k"}'])
@pytest.mark.parametrize("name", ["radii.parquet", "cell.json"])
def test_cut_empty_and_foreign_files_are_named_and_set_aside(
    cell: CellFolder, name: str, data: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    (cell.path / name).write_bytes(data)
    assert not cell.finished("k")
    assert name in caplog.text and f"{name}.damaged-1" in caplog.text
    assert (cell.path / f"{name}.damaged-1").read_bytes() == data


def test_a_cell_of_another_schema_version_or_another_cell_is_set_aside(
    cell: CellFolder, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(files, "SCHEMA_VERSION", 999)
        fill(cell)
    assert not cell.finished("k")
    assert "schema version 999" in caplog.text
    other = Store(cell.path.parents[3]).cell("digits", "crown", 0)
    fill(other)
    (other.path / "cell.json").rename(cell.path / "cell.json")
    assert not cell.finished("k")
    assert "belongs to another cell" in caplog.text


@pytest.mark.parametrize("name", ["radii.parquet", "predictions.parquet"])
def test_a_record_that_does_not_name_its_rows_is_no_finished_cell(cell: CellFolder, name: str) -> None:
    record = unseal((cell.path / "cell.json").read_bytes())
    del record["files"][name], record["schema_version"]
    (cell.path / "cell.json").write_bytes(seal(record))
    with pytest.raises(DamagedFileError, match="other files than those of a cell"):
        cell.record()


def test_reading_refuses_what_finished_would_set_aside(cell: CellFolder) -> None:
    data = bytearray((cell.path / "radii.parquet").read_bytes())
    data[50] ^= 1
    (cell.path / "radii.parquet").write_bytes(data)
    with pytest.raises(DamagedFileError, match="checksum"):
        cell.read()


@pytest.mark.parametrize("failing", range(1, 5))
def test_a_full_disk_keeps_the_old_results(
    cell: CellFolder, monkeypatch: pytest.MonkeyPatch, failing: int
) -> None:
    calls, fsync = 0, os.fsync

    def full(descriptor: int) -> None:
        nonlocal calls
        calls += 1
        if calls == failing:
            raise OSError(errno.ENOSPC, "No space left on device")
        fsync(descriptor)

    before = {path.name: path.read_bytes() for path in cell.path.iterdir()}
    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        with pytest.raises(OSError, match=r"No space left on device.*(parquet|safetensors|cell\.json)"):
            fill(cell, key="new", count=9)
    assert {path.name: path.read_bytes() for path in cell.path.iterdir()} == before
    assert cell.finished("k")


def test_a_crash_while_replacing_results_leaves_an_unfinished_cell_that_can_be_written(
    cell: CellFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    for survivors in range(4):
        replaced, replace = 0, Path.replace

        def crash(self: Path, target: Path, limit: int = survivors, real=replace) -> Path:
            nonlocal replaced
            replaced += 1
            if replaced > limit:
                raise KeyboardInterrupt
            return real(self, target)

        with monkeypatch.context() as patch:
            patch.setattr(Path, "replace", crash)
            with pytest.raises(KeyboardInterrupt):
                fill(cell, key="new", count=9)
        assert not cell.finished("k") and not cell.finished("new")
        Store(cell.path.parents[3]).sweep()
        assert not list(cell.path.glob(".*"))
        fill(cell)
        assert cell.finished("k")


def test_a_failed_write_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "run.json"
    write_atomic(path, b"old")

    def broken(descriptor: int) -> None:
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(os, "fsync", broken)
    with pytest.raises(OSError, match=r"run\.json"):
        write_atomic(path, b"new")
    assert path.read_bytes() == b"old" and list(tmp_path.iterdir()) == [path]


def test_merged_tables_do_not_depend_on_the_order_of_finishing(tmp_path: Path) -> None:
    bytes_of = []
    for order in (1, -1):
        store = Store(tmp_path / f"out{order}")
        cells = [store.cell("mnist:3-8", method, seed) for method in ("b", "a") for seed in (1, 0)][::order]
        for one in cells:
            fill(one)
        radii, predictions = store.merge(cells)
        assert len(radii) == 20 and len(predictions) == 16
        bytes_of.append(
            [(store.out / name).read_bytes() for name in ("radii.parquet", "predictions.parquet")]
        )
    assert bytes_of[0] == bytes_of[1]


def test_only_the_timing_may_differ(tmp_path: Path) -> None:
    slow, fast = check_radii(radii_frame()), check_radii(radii_frame().assign(seconds=3.0))
    assert not slow.equals(fast)
    pd.testing.assert_frame_equal(without_timing(slow), without_timing(fast))


def test_a_run_without_any_cell_has_empty_tables(tmp_path: Path) -> None:
    store = Store(tmp_path)
    radii, predictions = store.merge([])
    assert radii.empty and predictions.empty and list(radii.columns) == list(RADII_COLUMNS)


def test_a_finished_run_is_read_back_and_its_damage_is_named(cell: CellFolder) -> None:
    store = Store(cell.path.parents[3])
    with pytest.raises(UsageError, match=r"not the output folder of a finished run"):
        store.read_run()
    radii, predictions = store.merge([cell])
    store.write_run({"suite": "quick"})
    run, stored_radii, stored_predictions = store.read_run()
    assert run["suite"] == "quick"
    pd.testing.assert_frame_equal(stored_radii, radii)
    pd.testing.assert_frame_equal(stored_predictions, predictions)
    (store.out / "radii.parquet").write_bytes(b"PAR1")
    with pytest.raises(UsageError, match=r"radii\.parquet' has 4 bytes where"):
        store.read_run()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"outcome": "fine"}, "outcome must be one of certified"),
        ({"norm": "L2"}, "norm must be one of l1, l2, linf"),
        ({"radius": 1.0}, "radius must be missing where not certified"),
        ({"radius": np.nan}, "radius must be a positive number where certified"),
        ({"radius": -1.0}, "radius must be a positive number where certified"),
        ({"label": 0}, "label must be 1"),
        ({"predicted": -1}, "predicted must be one of 0, 1"),
        ({"predicted": 0}, "predicted must be 1 where certified"),
        ({"predicted": np.nan}, "predicted must be 1 where certified"),
        ({"radius_upper": np.inf}, "radius_upper must be a finite number"),
        ({"alpha": np.nan}, "alpha must lie in"),
        ({"guarantee": "deterministic"}, "alpha must lie in"),
        ({"index": 0}, "two rows for"),
        ({"reason": None}, "column 'reason' has a missing value"),
        ({"seed": "zero"}, "wrong type"),
        ({"extra": 1}, "wrong columns: extra"),
    ],
)
def test_rows_that_are_not_valid_are_refused(cell: CellFolder, change: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        cell.write("k", radii_frame().assign(**change), predictions_frame())
    assert cell.finished("k")


def test_rows_of_another_cell_are_refused(cell: CellFolder) -> None:
    with pytest.raises(ValueError, match="rows of method 'crown' in the cell of method 'fcnn'"):
        cell.write("k", radii_frame("crown"), predictions_frame())


@given(st.text(min_size=1, max_size=12), st.text(min_size=1, max_size=12))
def test_names_never_leave_the_output_folder_and_never_collide(first: str, second: str) -> None:
    root = Path("/out").resolve()
    path = Store(root).cell(first, second, 0).path
    assert path.resolve() == path and len(path.relative_to(root).parts) == 4
    assert (safe_name(first) == safe_name(second)) == (first == second)


@pytest.mark.parametrize("name", ["", "x" * 300, "\N{SNOWMAN}" * 60])
def test_names_that_no_file_system_takes_are_refused(name: str) -> None:
    with pytest.raises(UsageError, match="cannot be a folder"):
        safe_name(name)


def test_readable_names_stay_readable() -> None:
    assert [safe_name(name) for name in ("mnist_38", "mnist:3-8", "..", "a/b")] == [
        "mnist_38",
        "mnist%3A3-8",
        "%2E.",
        "a%2Fb",
    ]


def test_an_output_folder_that_cannot_be_written_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    for out in (tmp_path / "file", tmp_path / "file" / "below", Path("/proc/nowhere")):
        with pytest.raises(UsageError, match="cannot write to the output folder") as caught:
            Store(out).prepare()
        assert "\n" not in str(caught.value) and str(out) in str(caught.value)


def test_preparing_leaves_nothing_behind(tmp_path: Path) -> None:
    Store(tmp_path / "a" / "b").prepare()
    assert list((tmp_path / "a" / "b").iterdir()) == []


def test_set_aside_keeps_every_version(tmp_path: Path) -> None:
    for text in ("one", "two"):
        (tmp_path / "x").write_text(text)
        set_aside(tmp_path / "x", "is odd")
    assert [(tmp_path / f"x.damaged-{n}").read_text() for n in (1, 2)] == ["one", "two"]


def test_settings_of_all_kinds_fit_into_a_sealed_record(tmp_path: Path) -> None:
    values = {
        "limit": float("inf"),
        "sizes": (200, 50),
        "path": Path("/home/someone/data"),
        "n": np.int64(3),
    }
    assert plain(values) == {"limit": "inf", "sizes": [200, 50], "path": "data", "n": 3}
    record = unseal(seal(values))
    assert record["sizes"] == [200, 50] and record["schema_version"] == files.SCHEMA_VERSION


def test_a_sealed_record_is_refused_when_only_its_form_was_changed() -> None:
    sealed = seal({"seconds": 1.5, "names": ["a", "b"]})
    for changed in (sealed + b" ", sealed.replace(b"  ", b" "), sealed.replace(b"1.5", b"1.50")):
        with pytest.raises(DamagedFileError):
            unseal(changed)
    assert unseal(sealed)["seconds"] == 1.5
