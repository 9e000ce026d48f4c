"""Robust or not at given radii: answers against brute force in the plane, resuming, bad input."""

import shutil
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from undrawn import run_suite

from bench.commands import queries
from bench.data import load_dataset
from bench.kept.finished import load_method
from bench.kept.store import Store
from bench.queries import main

SUITE = """
datasets = ["circles"]
operating_points = ["balanced", "other_recall=0.5"]
norms = ["linf"]
[[methods]]
method = "crown"
settings = { hidden = [12], train = { epochs = 30, batch_size = 32 } }
[[methods]]
method = "linf_distance"
settings.train.epochs = 1
"""
ASKED = ["--dataset", "circles", "--methods", "crown", "--jobs", "1", "--inputs", "6"]
RADII = ["--radii", "l1=0.05,0.3", "l2=0.05,0.3", "linf=0.05,0.3"]
ORDER = {"l1": 1, "l2": 2, "linf": float("inf")}


@pytest.fixture(scope="module")
def out(tmp_path_factory) -> Path:
    return run_suite(tmp_path_factory.mktemp("queries"), SUITE)


@pytest.mark.parametrize("domain", ["free", "box"])
def test_answers_agree_with_the_least_score_on_a_fine_grid(out, domain, capsys):
    assert main([str(out), *ASKED, *RADII, "--domain", domain]) == 0
    assert "decided: 36 of 36 (100%)" in capsys.readouterr().out
    data = load_dataset("circles")
    model = load_method(Store(out), data, "circles", "crown", 0).model.double()
    steps = torch.linspace(-1, 1, 401, dtype=torch.float64)
    moves = torch.cartesian_prod(steps, steps)
    answers = pd.read_csv(out / queries.ANSWERS)
    answers = answers[answers["domain"] == domain]
    assert set(answers["answer"]) == {"robust", "not_robust"}
    for row in answers.itertuples():
        x = torch.from_numpy(data.x_test[row.index]).double()
        inside = torch.linalg.vector_norm(moves, ord=ORDER[row.norm], dim=1) <= 1
        points = x + row.radius * moves[inside]
        if domain == "box":
            points = points[((points >= 0) & (points <= 1)).all(dim=1)]
        least = model(points).min().item()
        assert (least > 0) == (row.answer == "robust")


def test_inputs_are_those_that_the_network_asked_calls_sensitive(out):
    """The network has the threshold of the first operating point; a lower one calls further inputs sensitive."""
    store, data = Store(out), load_dataset("circles")
    method = load_method(store, data, "circles", "crown", 0)
    network = queries.Network("crown", None, "")
    _, index = queries.chosen_inputs(
        store, network, data, 0, queries.Queries({"linf": (0.1,)}, inputs=10_000)
    )
    sensitive = np.flatnonzero(data.y_test == 1)
    called = sensitive[method.predict(torch.from_numpy(data.x_test[sensitive]), 0).numpy() == 1]
    _, radii, _ = store.read_run()
    mine = (radii["method"] == "crown") & (radii["predicted"] == 1)
    by_point = radii[mine].groupby("operating_point")["index"].apply(frozenset)
    assert by_point.nunique() > 1, "the points differ, so that the test can fail"
    assert sorted(index) == sorted(called)


def test_a_second_call_asks_nothing_again(out, monkeypatch):
    words = [str(out), *ASKED, "--radii", "l2=0.1"]
    assert main(words) == 0
    before = (out / queries.ANSWERS).read_bytes()
    monkeypatch.setattr(queries, "answer", lambda *_: pytest.fail("asked an answered query"))
    assert main(words) == 0
    assert (out / queries.ANSWERS).read_bytes() == before


def test_inputs_that_were_not_asked_about_are_asked():
    """Of some inputs there are answers from before: the others are no less a question, nor are other domains."""
    here = {"network": "name", "norm": "linf", "domain": "box", "radius": 0.15}
    done = pd.DataFrame({**here, "index": [0, 1, 2]})
    network, box = queries.Network("crown", None, "name"), queries.Queries({"linf": (0.15,)}, "box")
    answered = partial(queries._answered, done, network, "linf", 0.15)
    assert answered(box, np.array([0, 2])) and not answered(box, np.array([0, 3]))
    assert not answered(replace(box, domain="free"), np.array([0, 2]))


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([*ASKED, "--radii", "l2"], "write NORM=R,R"),
        ([*ASKED, "--radii", "l2=-1"], "positive"),
        ([*ASKED, "--radii", "l3=1"], "'l3'"),
        ([*ASKED, "--radii", "l2=1", "--seconds", "0"], "--seconds 0.0"),
        ([*ASKED, "--radii", "l2=1", "--seed", "7"], "unknown seed of the run '7': choose from 0"),
        ([*ASKED, "--radii", "l2=1", "--seconds", "inf"], "--seconds inf"),
        ([*ASKED, "--radii", "l2=1", "l2=2"], "l2 is named twice"),
        (
            ["--dataset", "circle", "--methods", "crown", "--radii", "l2=1"],
            "'circle' (did you mean 'circles'?)",
        ),
        (
            ["--dataset", "circles", "--methods", "crow", "--radii", "l2=1"],
            "choose from crown, linf_distance",
        ),
        (
            ["--dataset", "circles", "--methods", "linf_distance", "--radii", "l2=1"],
            "cannot read the network",
        ),
    ],
    ids=[
        "no radius",
        "negative",
        "norm",
        "seconds",
        "cell",
        "endless",
        "twice",
        "data set",
        "method",
        "network",
    ],
)
def test_bad_input_is_one_line_and_exit_code_2(out, words, message, capsys):
    assert main([str(out), *words]) == 2
    lines = capsys.readouterr().err.strip().splitlines()
    assert len(lines) == 1
    assert message in lines[0]


@pytest.mark.parametrize("text", ["", "a,b\n1,2\n"], ids=["empty", "foreign"])
def test_a_table_of_answers_that_is_none_is_not_overwritten(out, text, tmp_path, capsys):
    copy = shutil.copytree(out, tmp_path / "run")
    (copy / queries.ANSWERS).write_text(text)
    assert main([str(copy), *ASKED, "--radii", "l2=0.1"]) == 2
    told = capsys.readouterr().err
    assert "no table of earlier answers" in told and told.count("\n") == 1
    assert (copy / queries.ANSWERS).read_text() == text
