"""What the estimator makes of its data before training: the weights of classes."""

import numpy as np
import pytest

from fcnn.estimator_data import class_weights, hold_out

LABELS = np.array(["harmless", "fraud"])  # of the other class, of the sensitive one
SENSITIVE = np.array([True, False, False, False, True])
ROWS = np.array([3.0, 1.0, 1.0, 4.0, 0.5])


def test_balanced_classes_weigh_the_same_with_their_rows_weights():
    weight = ROWS * class_weights("balanced", LABELS, SENSITIVE, ROWS)
    assert weight[SENSITIVE].sum() == pytest.approx(ROWS.sum() / 2)
    assert weight[~SENSITIVE].sum() == pytest.approx(ROWS.sum() / 2)
    # Within a class, rows keep their shares.
    assert weight[0] / weight[4] == pytest.approx(6) and weight[3] / weight[1] == pytest.approx(4)


@pytest.mark.parametrize(
    ("setting", "sensitive", "other"),
    [
        ({"fraud": 5.0}, 5, 1),
        ({"harmless": 2.0}, 1, 2),
        ({"fraud": 3.0, "harmless": 0.5}, 3, 0.5),
        (None, 1, 1),
    ],
)
def test_given_weights_go_to_the_class_that_is_named(setting, sensitive, other):
    found = class_weights(setting, LABELS, SENSITIVE, ROWS)
    assert found.tolist() == np.where(SENSITIVE, sensitive, other).tolist()


def test_the_held_out_rows_are_the_share_asked_for_of_either_class():
    sensitive = np.arange(500) % 10 == 0
    kept, held = hold_out(sensitive, 0.2, seed=0)
    assert sorted([*kept, *held]) == list(range(500))
    assert (len(held), sensitive[held].sum()) == (100, 10)
    assert set(hold_out(sensitive, 0.2, seed=1)[1]) != set(held)
    few, none = hold_out(sensitive[:200], 0.2, seed=0)
    assert none is None and few.tolist() == list(range(200))  # four of the rarer class would say nothing
