"""The registered methods' certificates on a network from a file: nothing is built, trained or calibrated."""

from torch import Tensor, nn

from baselines.layered import LayeredNetwork
from bench.calibration import ThresholdedScore
from bench.contract import FitContext, TrainingData
from bench.kept.watching import Watched, WatchedBounds, WatchedBranchAndBound
from bench.methods._bounds import BoundPropagation
from bench.methods.alpha_beta_crown import AlphaBetaCROWN
from bench.methods.fcnn import FCNN
from bench.methods.smoothing_gaussian import SmoothingGaussian
from bench.methods.smoothing_laplace import SmoothingLaplace
from bench.methods.smoothing_uniform import SmoothingUniform
from bench.model_files.scores import Score


class Given(Watched):
    """The first base of a method whose network is ``given``, trained already, and whose certificates are watched."""

    given: nn.Module

    def network(self, input_shape: tuple[int, ...]) -> nn.Module:
        return self.given

    def fit(self, data: TrainingData, context: FitContext) -> None:
        pass


class GivenFCNN(Given, FCNN):
    """Certificates from tangents."""

    chunk = 128


class GivenMargins(Given):
    """The first base of a method that bounds one or several margins in float64; ``layered``: as they were read."""

    layered: LayeredNetwork | None = None

    def bounded(self) -> nn.Module | LayeredNetwork:
        return margins_of(self.model) if self.layered is None else self.layered

    def score(self, x: Tensor) -> Tensor:
        return self.model(x.double())


class GivenBounds(GivenMargins, WatchedBounds, BoundPropagation):
    """Certificates from bounds."""

    name = "bounds"
    title = "Bounds"
    reference = "Gowal et al., 2018; Zhang et al., NeurIPS 2018; Xu et al., ICLR 2021"


class GivenBranchAndBound(GivenMargins, WatchedBranchAndBound, AlphaBetaCROWN):
    """Certificates from branch and bound."""


def margins_of(network: nn.Module) -> nn.Module:
    """What bounds work on: all outputs of it are positive where the input is sensitive."""
    return network.margins if isinstance(network, Score) else network


class GivenInNoise(Given):
    """The first base of a smoothed classifier: another classifier, the network's majority vote under noise.

    Few inputs at a time, so that their number moves on; each batch draws noise of its own.
    """

    chunk = 0
    batch_size = 8

    def network(self, input_shape: tuple[int, ...]) -> nn.Module:
        return ThresholdedScore(self.given.float()).eval()


class GivenGaussian(GivenInNoise, SmoothingGaussian):
    """Votes under Gaussian noise."""


class GivenLaplace(GivenInNoise, SmoothingLaplace):
    """Votes under Laplace noise."""


class GivenUniform(GivenInNoise, SmoothingUniform):
    """Votes under uniform noise."""


SMOOTHING: dict[str, type[Given]] = {
    method.name: method for method in (GivenGaussian, GivenLaplace, GivenUniform)
}
GIVEN: dict[str, type[Given]] = {
    **{method.name: method for method in (GivenFCNN, GivenBounds, GivenBranchAndBound)},
    **SMOOTHING,
}
