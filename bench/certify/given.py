"""The registered methods' certificates on a network from a file: nothing is built, trained or calibrated."""

from torch import Tensor, nn

from bench.calibration import ThresholdedScore
from bench.contract import FitContext, Method, TrainingData
from bench.methods._bounds import BoundPropagation
from bench.methods.alpha_beta_crown import AlphaBetaCROWN
from bench.methods.fcnn import FCNN
from bench.methods.smoothing_gaussian import SmoothingGaussian
from bench.methods.smoothing_laplace import SmoothingLaplace
from bench.methods.smoothing_uniform import SmoothingUniform


class Given:
    """The first base of a method whose network is ``given``, trained already."""

    given: nn.Module

    def network(self, input_shape: tuple[int, ...]) -> nn.Module:
        return self.given

    def fit(self, data: TrainingData, context: FitContext) -> None:
        pass

    def calibrate(self, x: Tensor, y: Tensor, seed: int) -> None:
        pass


class GivenFCNN(Given, FCNN):
    """Certificates from tangents."""


class GivenBounds(Given, BoundPropagation):
    """Certificates from bounds; the network computes in float64."""

    name = "bounds"
    title = "Bounds"
    reference = "Gowal et al., 2018; Zhang et al., NeurIPS 2018; Xu et al., ICLR 2021"

    def score(self, x: Tensor) -> Tensor:
        return self.model(x.double())


class GivenBranchAndBound(Given, AlphaBetaCROWN):
    """Certificates from branch and bound; the network computes in float64."""

    def score(self, x: Tensor) -> Tensor:
        return self.model(x.double())


class GivenInNoise(Given):
    """The first base of a smoothed classifier: another classifier, the network's majority vote under noise."""

    def network(self, input_shape: tuple[int, ...]) -> nn.Module:
        return ThresholdedScore(self.given.float()).eval()


class GivenGaussian(GivenInNoise, SmoothingGaussian):
    """Votes under Gaussian noise."""


class GivenLaplace(GivenInNoise, SmoothingLaplace):
    """Votes under Laplace noise."""


class GivenUniform(GivenInNoise, SmoothingUniform):
    """Votes under uniform noise."""


SMOOTHING: dict[str, type[Method]] = {
    method.name: method for method in (GivenGaussian, GivenLaplace, GivenUniform)
}
GIVEN: dict[str, type[Method]] = {
    **{method.name: method for method in (GivenFCNN, GivenBounds, GivenBranchAndBound)},
    **SMOOTHING,
}
