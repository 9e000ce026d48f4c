"""Lower bounds of a network's score over balls: interval arithmetic, CROWN and optimised CROWN, by auto-LiRPA.

IBP: Gowal et al., *On the Effectiveness of Interval Bound Propagation* (2018). CROWN: Zhang et al., *Efficient Neural
Network Robustness Certification with General Activation Functions* (NeurIPS 2018), linear bounds passed backwards.
CROWN-IBP: Zhang et al. (ICLR 2020), CROWN for the score with interval bounds inside. alpha-CROWN: Xu et al. (ICLR
2021), CROWN with the slopes under the ReLUs optimised for the score.

All in float64. auto-LiRPA knows balls, but not balls in a box, nor images in l1 and l2; so the inputs are flattened,
the neurons that are linear in the input are bounded exactly here, and so is the last step of every backward pass.
"""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from baselines.bounds.compat import float64_by_default, load_auto_lirpa, tracing
from baselines.bounds.geometry import Balls
from baselines.bounds.layers import SUPPORTED_OPERATIONS, UnsupportedLayer, prepare

METHODS = ("ibp", "crown_ibp", "crown", "alpha_crown")
OPTIONS = {
    "conv_mode": "matrix",
    # CROWN leaves out neurons that intervals show to be stable for all inputs of a batch. A stable neuron's bounds do
    # not matter, and those of the others are the same, so an input's bound does not depend on the batch.
    "sparse_intermediate_bounds": True,
    "sparse_features_alpha": False,
    "sparse_spec_alpha": False,
}
GRADIENT_CHUNK = 256
# 4 GiB in float64; search tables take a few times as much.
LARGEST_COEFFICIENTS = 1 << 29
AGREEMENT = 1e-7

Bounds = dict[str, tuple[Tensor, Tensor]]


@dataclass(frozen=True)
class SlopeSettings:
    """How alpha-CROWN optimises: number of Adam steps and their size."""

    steps: int = 20
    learning_rate: float = 0.3


@dataclass(frozen=True)
class AffineNeurons:
    """Neurons that are linear in the input, before a nonlinearity: rows (S, d) and the shape of the layer."""

    rows: Tensor
    shape: tuple[int, ...]


class BoundedScore:
    """A network (N, *shape) -> (N,) or (N, 1) whose score can be bounded over balls; build once, use for all inputs.

    Raises UnsupportedLayer naming a layer that cannot be bounded, ImportError when auto-LiRPA is missing.
    """

    def __init__(
        self, model: nn.Module, input_shape: tuple[int, ...], device: torch.device | str = "cpu"
    ) -> None:
        self.model = model
        self.device = torch.device(device)
        self.input_shape = tuple(input_shape)
        self.dim = int(np.prod(self.input_shape))
        self._score = prepare(model, self.input_shape, self.device)
        self._lirpa = load_auto_lirpa()
        self._graph = self._trace()
        self._output = self._graph.final_name
        self._relus = [node for node in self._graph.relus if node.from_input]
        self._inner = list(dict.fromkeys(node.inputs[0].name for node in self._relus))
        self._affine = self._affine_neurons()
        self._check_bounds()

    @property
    def widest_layer(self) -> int:
        """Largest number of neurons whose bounds need a backward pass of their own (0: none does)."""
        inner = [name for name in self._inner if name not in self._affine]
        return max((int(np.prod(self._graph[name].output_shape[1:])) for name in inner), default=0)

    def score(self, x: Tensor) -> Tensor:
        """Score (N,) in float64."""
        with torch.no_grad():
            return self._score(self.flatten(x)).squeeze(1)

    def flatten(self, x: Tensor) -> Tensor:
        """Inputs as (N, d) float64 on the right device. Raises ValueError for another shape."""
        if tuple(x.shape[1:]) != self.input_shape:
            raise ValueError(
                f"inputs have shape {tuple(x.shape[1:])}, the network was built for {self.input_shape}"
            )
        return x.detach().to(device=self.device, dtype=torch.float64).reshape(len(x), self.dim)

    def balls(self, x: Tensor, norm: str, domain: str) -> Balls:
        """Balls of radius 0 around x (N, *shape), prepared for being asked about with many radii."""
        center = self.flatten(x)
        balls = Balls(center, torch.zeros(len(x), dtype=torch.float64, device=self.device), norm, domain)
        return balls.with_tables({name: affine.rows for name, affine in self._affine.items()})

    def lower(
        self, balls: Balls, method: str, slopes: SlopeSettings | None = None, enough: Tensor | None = None
    ) -> Tensor:
        """Lower bound (N,) of the score over each ball; a later method in METHODS is never below an earlier one.

        enough: (N,) alpha-CROWN stops improving an input's bound once it is above this value.
        """
        if method not in METHODS:
            raise ValueError(f"unknown method {method!r}: choose one of {', '.join(METHODS)}")
        if self._output in self._affine:
            return self._affine_bounds(self._output, balls)[0].squeeze(1)
        with torch.no_grad():
            lower, inner = self._interval_bounds(balls)
            if method == "ibp":
                return lower
            lower = torch.maximum(lower, self._backward(balls, inner))
            if method != "crown_ibp" and self.widest_layer > 0:
                inner = self._crown_inner_bounds(balls, inner)
                lower = torch.maximum(lower, self._backward(balls, inner))
        if method == "alpha_crown":
            lower = self._optimise_slopes(balls, inner, lower, slopes or SlopeSettings(), enough)
        return lower

    def _trace(self) -> nn.Module:
        """Build auto-LiRPA's graph; what it cannot represent, or represents wrongly, is unsupported."""
        example = torch.zeros(2, self.dim, dtype=torch.float64, device=self.device)
        try:
            with tracing():
                graph = self._lirpa.BoundedModule(
                    self._score, example, bound_opts=dict(OPTIONS), device=self.device
                )
        except Exception as error:  # auto-LiRPA raises many types for what it does not know
            raise UnsupportedLayer(f"an operation of the network (auto-LiRPA: {error!r})") from error
        with torch.no_grad():
            graph(*self._perturbed(Balls(example, example[:, 0], "linf")))
        self._check_operations(graph)
        return graph

    def _check_operations(self, graph: nn.Module) -> None:
        """Raise UnsupportedLayer for an operation on values that depend on the input and is not known to be right."""
        for node in graph._modules.values():
            operation = type(node).__name__.removeprefix("Bound")
            if node.perturbed and operation not in SUPPORTED_OPERATIONS:
                raise UnsupportedLayer(f"the operation '{operation}'")
            if node.perturbed and operation in ("Mul", "Div"):
                if node.inputs[1].perturbed and (operation == "Div" or node.inputs[0].perturbed):
                    raise UnsupportedLayer(
                        f"a product or quotient of values that depend on the input ('{operation}')"
                    )
                # auto-LiRPA takes a parameter, unlike other constants, for a second variable.
                node.is_constant_op, node.requires_input_bounds = True, []

    def _check_bounds(self) -> None:
        """Bounds over balls of radius 0 must be the scores: auto-LiRPA then reads the network as torch does."""
        generator = torch.Generator().manual_seed(0)
        x = torch.rand(3, self.dim, generator=generator, dtype=torch.float64).to(self.device)
        points = Balls(x, torch.zeros_like(x[:, 0]), "linf")
        score = self._score(x).squeeze(1)
        for method in ("ibp", "crown"):
            try:
                lower = self.lower(points, method)
            except Exception as error:  # as above
                raise UnsupportedLayer(f"an operation of the network ({error!r} in {method})") from error
            if not torch.allclose(lower, score, rtol=AGREEMENT, atol=AGREEMENT):
                raise UnsupportedLayer(f"this network: {method} by auto-LiRPA does not reproduce its scores")

    def _affine_neurons(self) -> dict[str, AffineNeurons]:
        """Coefficients of the ReLU inputs (and the output) that no ReLU precedes."""
        names = [name for name in (*self._inner, self._output) if not self._follows_relu(self._graph[name])]
        return {name: self._coefficients(name) for name in names}

    def _coefficients(self, name: str) -> AffineNeurons:
        """Coefficients of neurons that are linear in the input: their gradients, the same everywhere."""
        origin = torch.zeros(1, self.dim, dtype=torch.float64, device=self.device)
        shape = tuple(self._graph(origin, final_node_name=name).shape[1:])
        count = int(np.prod(shape))
        if count * self.dim > LARGEST_COEFFICIENTS:
            raise UnsupportedLayer(
                f"a first layer of {count:,} neurons on {self.dim:,} inputs (more than {LARGEST_COEFFICIENTS:,} "
                "coefficients)"
            )
        rows = []
        for part in torch.arange(count, device=self.device).split(GRADIENT_CHUNK):
            points = origin.repeat(len(part), 1).requires_grad_()
            neurons = self._graph(points, final_node_name=name).flatten(1).gather(1, part[:, None])
            rows.append(torch.autograd.grad(neurons.sum(), points)[0])
        return AffineNeurons(torch.cat(rows), shape)

    def _follows_relu(self, node: nn.Module) -> bool:
        relus = {relu.name for relu in self._relus}
        return any(before.name in relus or self._follows_relu(before) for before in node.inputs)

    def _affine_bounds(self, name: str, balls: Balls) -> tuple[Tensor, Tensor]:
        """Exact range over each ball of neurons that are linear in the input."""
        affine = self._affine[name]
        with torch.no_grad():
            value = self._graph(balls.center, final_node_name=name)
            down, up = (part.reshape(-1, *affine.shape) for part in balls.range_of(name, affine.rows))
        return value - down, value + up

    def _perturbed(self, balls: Balls) -> tuple[Tensor, ...]:
        """The inputs as auto-LiRPA takes them. Interval arithmetic sees the enclosing box, backward passes the ball."""
        lower, upper = balls.enclosing_box()
        perturbation = self._lirpa.PerturbationLpNorm(norm=np.inf, x_L=lower, x_U=upper)

        def concretize(x: Tensor, coefficients: Tensor, sign: int = -1, aux: object = None) -> Tensor:
            reach = balls.largest_decrease(-sign * coefficients)
            return (coefficients @ balls.center[..., None]).squeeze(-1) + sign * reach

        perturbation.concretize = concretize
        return (self._lirpa.BoundedTensor(balls.center, perturbation),)

    def _compute(self, balls: Balls, method: str, inner: Bounds, **options: object) -> Tensor:
        specification = torch.ones(len(balls.center), 1, 1, dtype=torch.float64, device=self.device)
        with float64_by_default():
            lower, _ = self._graph.compute_bounds(
                x=self._perturbed(balls),
                C=specification,
                method=method,
                bound_upper=False,
                intermediate_layer_bounds=inner,
                **options,
            )
        return lower.squeeze(1)

    def _interval_bounds(self, balls: Balls) -> tuple[Tensor, Bounds]:
        """Lower bound of the score and bounds on the input of every ReLU, by interval arithmetic."""
        exact = {name: self._affine_bounds(name, balls) for name in self._affine}
        lower = self._compute(balls, "IBP", exact)
        return lower, self._read_inner_bounds()

    def _crown_inner_bounds(self, balls: Balls, interval: Bounds) -> Bounds:
        """Bounds on the input of every ReLU by CROWN, never looser than the interval ones."""
        exact = {name: bounds for name, bounds in interval.items() if name in self._affine}
        self._compute(balls, "CROWN", exact, reference_bounds=interval, aux_reference_bounds=interval)
        return self._read_inner_bounds()

    def _backward(self, balls: Balls, inner: Bounds) -> Tensor:
        """CROWN's bound of the score, given bounds on the input of every ReLU."""
        return self._compute(balls, "CROWN", inner)

    def _read_inner_bounds(self) -> Bounds:
        nodes = {name: self._graph[name] for name in self._inner}
        return {name: (node.lower.detach(), node.upper.detach()) for name, node in nodes.items()}

    def _optimise_slopes(
        self, balls: Balls, inner: Bounds, best: Tensor, settings: SlopeSettings, enough: Tensor | None
    ) -> Tensor:
        """Raise the bound by gradient steps on the lower slopes; every slope in [0, 1] gives a valid bound."""
        alphas = self._start_slopes(inner)
        optimizer = torch.optim.Adam(alphas, lr=settings.learning_rate)
        target = torch.full_like(best, torch.inf) if enough is None else enough
        try:
            for _ in range(settings.steps):
                lower = self._backward(balls, inner)
                # An input that has reached its target is frozen, so that its bound does not depend on the others'.
                best = torch.where(best > target, best, torch.maximum(best, lower.detach()))
                if bool((best > target).all()):
                    break
                optimizer.zero_grad()
                (-lower.sum()).backward()
                optimizer.step()
                for alpha in alphas:
                    alpha.data.clamp_(0.0, 1.0)
        finally:
            for relu in self._relus:
                relu.opt_end()
        return best

    def _start_slopes(self, inner: Bounds) -> list[Tensor]:
        """Give each ReLU its slopes, (2, 1, N, *layer) as auto-LiRPA stores them, starting from CROWN's choice."""
        alphas = []
        for relu in self._relus:
            lower, upper = inner[relu.inputs[0].name]
            alpha = (upper > -lower).to(torch.float64).expand(2, 1, *lower.shape).clone().requires_grad_()
            relu.alpha = {self._output: alpha}
            relu.alpha_lookup_idx = {self._output: None}
            relu.alpha_indices = None
            relu.opt_start()
            alphas.append(alpha)
        return alphas
