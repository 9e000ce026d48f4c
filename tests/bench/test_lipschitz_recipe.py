"""What the recipes of Lipschitz networks share."""

import torch

from bench.contract import FitContext, TrainingData
from bench.methods.cayley import Cayley, CayleySettings
from fcnn.training import TrainSettings


def test_a_common_offset_of_all_inputs_changes_nothing_that_is_learned():
    """What the network trains on is the inputs minus the training split's mean, as feature-convex networks do."""
    generator = torch.Generator().manual_seed(0)
    x = torch.rand(60, 6, generator=generator)
    y = (x[:, 0] > x[:, 1]).long()
    scores = []
    for offset in (0.0, 4.0):
        method = Cayley(
            CayleySettings(hidden=(8, 4), train=TrainSettings(epochs=3, batch_size=20)), torch.device("cpu")
        )
        method.build((6,), seed=0)
        method.fit(TrainingData(x[:40] + offset, y[:40], x[40:] + offset, y[40:]), FitContext(seed=0))
        scores.append(method.score(x + offset).detach())
    assert scores[0].std() > 0.01
    assert torch.allclose(scores[0], scores[1], atol=1e-4)
