"""A network as affine layers and activations, each value a vector; any layer may look back at any earlier one."""

import warnings
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from baselines.layered.operators import RELU, Activation

EPSILON = 2.0**-52


@dataclass(frozen=True)
class Layer:
    """z = sum_j maps[j] h_j + bias and h = activation(z), where h_0 is the input and h_k the value of layer k.

    maps: source j -> (n, n_j), dense or CSR, float64. bias: (n,). activation: None in the last layer, which is the
    output. name: for messages.
    """

    maps: dict[int, Tensor]
    bias: Tensor
    activation: Activation | None
    name: str = ""

    @property
    def width(self) -> int:
        """Number of neurons n."""
        return len(self.bias)

    @property
    def follows_input_only(self) -> bool:
        """Whether z is an affine function of the input."""
        return set(self.maps) <= {0}

    @property
    def is_relu(self) -> bool:
        return self.activation is RELU

    def affine(self, values: list[Tensor]) -> Tensor:
        """z (N, n) from the values h_j (N, n_j) so far."""
        return sum((times(values[j], matrix) for j, matrix in self.maps.items()), self.bias)


@dataclass(frozen=True)
class LayeredNetwork:
    """Layers 1 .. K, the last of which is the output; ``dim`` inputs."""

    layers: tuple[Layer, ...]
    dim: int

    def preactivations(self, x: Tensor) -> list[Tensor]:
        """All z_k at x (N, d); the last are the outputs (N, M)."""
        values, found = [x], []
        for layer in self.layers:
            found.append(layer.affine(values))
            values.append(found[-1] if layer.activation is None else layer.activation.function(found[-1]))
        return found

    def outputs(self, x: Tensor) -> Tensor:
        """Outputs (N, M) at x (N, d)."""
        return self.preactivations(x)[-1]

    def rounding(self, x: Tensor) -> Tensor:
        """First-order bound (N,) on how far float64 takes the outputs at x (N, d) from their exact values."""
        return self.roundings(x)[-1]

    def roundings(self, x: Tensor) -> list[Tensor]:
        """The same for every layer's values, the largest of each layer: (N,) each.

        Source: Higham, Accuracy and Stability of Numerical Algorithms, section 3.5: an inner product of n terms errs by
        at most n epsilon times the sum of their sizes.
        """
        values, errors = [x], [torch.zeros_like(x)]
        for layer in self.layers:
            z = layer.affine(values)
            sizes = layer.bias.abs().expand_as(z)
            passed = torch.zeros_like(z)
            terms = 2
            for j, matrix in layer.maps.items():
                size = matrix.abs()
                sizes = sizes + times(values[j].abs(), size)
                passed = passed + times(errors[j], size)
                terms += matrix.shape[1]
            error = passed + terms * EPSILON * sizes
            values.append(z if layer.activation is None else layer.activation.function(z))
            if layer.activation is not None:
                error = layer.activation.passed_on(z, error)
            errors.append(error + EPSILON * values[-1].abs())
        return [error.amax(dim=1) for error in errors[1:]]

    def with_outputs(self, mix: Callable[[Tensor], Tensor]) -> "LayeredNetwork":
        """The same network with linear combinations of its outputs: ``mix`` maps (..., M) to (..., R)."""
        last = self.layers[-1]
        maps = {j: mix(dense(matrix).T).T.contiguous() for j, matrix in last.maps.items()}
        changed = Layer(maps, mix(last.bias), None, last.name)
        return LayeredNetwork((*self.layers[:-1], changed), self.dim)


def times(rows: Tensor, matrix: Tensor) -> Tensor:
    """rows (..., n_j) through a map (n, n_j), dense or CSR: (..., n)."""
    if matrix.layout == torch.strided:
        return rows @ matrix.T
    flat = rows.reshape(-1, rows.shape[-1])
    return (matrix @ flat.T).T.reshape(*rows.shape[:-1], matrix.shape[0])


def back(rows: Tensor, matrix: Tensor) -> Tensor:
    """Coefficients (..., n) on the outputs of a map (n, n_j) as coefficients (..., n_j) on its inputs."""
    if matrix.layout == torch.strided:
        return rows @ matrix
    return times(rows, without_zeros(matrix.t()))


def dense(matrix: Tensor) -> Tensor:
    """The matrix with all its zeros."""
    return matrix if matrix.layout == torch.strided else matrix.to_dense()


def without_zeros(matrix: Tensor) -> Tensor:
    """The matrix in compressed sparse rows."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch says that the format is new
        return matrix.to_sparse_csr()
