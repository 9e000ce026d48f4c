"""Which classifiers have not learned: by hand, at the edge of the band, and beside better ones."""

import numpy as np
import pandas as pd

from bench.report.tables.chance import near_chance


def predictions(
    method: str, sensitive: float, other: float, inputs: int = 100, point: str = "balanced", seed: int = 0
):
    """Predictions on ``inputs`` of either class with these recalls."""
    label = np.repeat([1, 0], inputs)
    right = np.concatenate([np.arange(inputs) < round(share * inputs) for share in (sensitive, other)])
    return pd.DataFrame(
        {
            "dataset": "set",
            "method": method,
            "operating_point": point,
            "seed": seed,
            "index": range(2 * inputs),
            "label": label,
            "predicted": pd.array(np.where(right, label, 1 - label), dtype="Int8"),
        }
    )


def marked(*tables: pd.DataFrame) -> set[str]:
    return {method for _, method, _ in near_chance(pd.concat(tables))}


def test_a_constant_answer_is_near_chance_whatever_it_is():
    good = predictions("good", 0.9, 0.9)
    assert marked(good, predictions("all", 1.0, 0.0), predictions("none", 0.0, 1.0)) == {"all", "none"}
    assert marked(predictions("all", 1.0, 0.0)) == {"all"}


def test_the_band_narrows_with_the_number_of_test_inputs():
    # Recalls of 62.6 and 44.6 %: balanced accuracy 53.6 %, with a band of 4.8 % from 200 inputs of each class.
    assert marked(predictions("few", 0.626, 0.446, inputs=200)) == {"few"}
    assert marked(predictions("many", 0.626, 0.446, inputs=5000)) == set()
    # Beside a method that reaches 75 % it is no opponent, however many inputs there are.
    better = predictions("better", 0.75, 0.75, inputs=5000)
    assert marked(predictions("many", 0.626, 0.446, inputs=5000), better) == {"many"}


def test_the_best_is_what_counts_however_many_have_not_learned_either():
    few = [predictions("best", 0.95, 0.95), predictions("weak", 0.65, 0.65, inputs=5000)]
    chance = [predictions(f"chance {number}", 0.5, 0.5) for number in range(8)]
    assert marked(*few) == {"weak"} and marked(*few, *chance) >= {"weak"}


def test_methods_are_held_against_the_best_at_their_own_operating_point():
    strict = {"point": "other_recall=0.99"}
    tables = [
        predictions("good", 0.98, 0.98),
        predictions("weak", 0.9, 0.9),
        predictions("good", 0.96, 0.99, **strict),
        predictions("weak", 0.3, 0.99, **strict),
    ]
    assert near_chance(pd.concat(tables)) == {("set", "weak", "other_recall=0.99")}
    # Where all are weak, the best is not held against a better one elsewhere.
    assert near_chance(pd.concat([tables[0], tables[3]])) == set()


def test_seeds_are_averaged_and_an_abstention_is_a_miss():
    lucky = [predictions("lucky", 0.9, 0.9, seed=0), predictions("lucky", 0.1, 0.1, seed=1)]
    assert marked(*lucky) == {"lucky"}
    abstaining = predictions("abstaining", 1.0, 1.0)
    abstaining.loc[abstaining["label"] == 1, "predicted"] = pd.NA
    assert marked(abstaining) == {"abstaining"}
    assert near_chance(lucky[0].iloc[:0]) == set()


def test_seeds_are_tested_on_the_same_inputs_and_do_not_narrow_the_band():
    many = [predictions("few", 0.626, 0.446, inputs=200, seed=seed) for seed in range(25)]
    assert marked(*many) == {"few"}
