"""Brackets of crossings on rays: they close around the crossing of a convex function, whatever its shape."""

from itertools import pairwise

import torch

from fcnn.rays import Crossings


def search(function, start, tolerance, evaluations, farthest=torch.inf):
    """Tightest level with a value <= 0, and all levels tried, for functions f (N,) -> (N,) of the level."""
    crossings = Crossings(start, torch.full_like(start, tolerance), torch.full_like(start, farthest))
    best, tried = torch.full_like(start, torch.inf), []
    for _ in range(evaluations):
        rows = crossings.open()
        level = crossings.level.clone()
        value = function(level)
        best[rows] = torch.where(value <= 0, torch.minimum(best, level), best)[rows]
        tried.append(level)
        crossings.update(rows, value[rows])
    return best, tried, crossings


def convex(seed, count=50, nearest=0.5, spread=2.0):
    """Random maxima of falling lines, with values of at most 1 at 0, and their crossings."""
    generator = torch.Generator().manual_seed(seed)
    roots = nearest + spread * torch.rand(count, 6, generator=generator, dtype=torch.float64)
    slopes = -1 / roots * torch.rand(count, 6, generator=generator, dtype=torch.float64)
    slopes[:, 0] = -1 / roots[:, 0]
    return (lambda t: (slopes * (t[:, None] - roots)).amax(1)), roots.amax(1)


def test_the_bracket_closes_around_the_crossing():
    for seed in range(3):
        function, exact = convex(seed)
        best, _, crossings = search(function, function(torch.zeros(50, dtype=torch.float64)), 1e-3, 25)
        assert len(crossings.open()) == 0
        assert (best >= exact).all() and (best <= exact * (1 + 1e-3)).all()


def test_four_evaluations_are_enough_where_the_first_is_near():
    function, exact = convex(7, nearest=0.9, spread=0.3)
    best, _, _ = search(function, function(torch.zeros(50, dtype=torch.float64)), 0.02, 4)
    assert (best / exact - 1).median() < 0.02 and torch.isfinite(best).float().mean() > 0.9


def test_a_crossing_before_the_first_try_is_found():
    """The line 1 - 4 t: level 1 lies behind its crossing at 0.25."""
    best, tried, _ = search(lambda t: 1 - 4 * t, torch.ones(1, dtype=torch.float64), 0.01, 6)
    assert tried[0].item() == 1 and 0.25 <= best.item() <= 0.2526


def test_a_score_that_does_not_fall_is_followed_outwards_and_the_start_is_left_alone():
    start = torch.tensor([1.0, 2.0], dtype=torch.float64)
    best, tried, _ = search(lambda t: torch.full_like(t, 3.0), start, 0.01, 4)
    assert best.isinf().all() and start.tolist() == [1.0, 2.0]
    assert all((later > earlier).all() for earlier, later in pairwise(tried))


def test_no_level_beyond_the_farthest_is_tried_and_a_ray_that_ends_there_is_done():
    """1 - 1e-15 t falls to 0 at 1e15, which the second try would go for; 1 - t / 3 before the end, 1 - t / 0.4 too."""
    start = torch.ones(3, dtype=torch.float64)
    slopes = torch.tensor([1e-15, 1 / 3, 2.5], dtype=torch.float64)
    best, tried, crossings = search(lambda t: 1 - slopes * t, start, 0.01, 12, farthest=5.0)
    assert max(level.max() for level in tried) == 5.0 and len(crossings.open()) == 0
    assert best[0].isinf() and 3 <= best[1] <= 3.03 and 0.4 <= best[2] <= 0.404
    best, tried, crossings = search(lambda t: 1 - slopes * t, start, 0.01, 12, farthest=0.5)
    assert max(level.max() for level in tried) == 0.5 and len(crossings.open()) == 0
    assert best.isinf().tolist() == [True, True, False]
