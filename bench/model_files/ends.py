"""From what a network returns to one score: positive means sensitive."""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from bench.errors import UsageError
from bench.model_files.program import Affine, Concat, Program, Reshape, Step


@dataclass(frozen=True)
class Stripped:
    """A program without the functions at its end that do not change which class wins.

    removed: what they were. pair: whether one number was found that is the second class's score less the first one's.
    """

    program: Program
    removed: str
    pair: bool


class Score(nn.Module):
    """score(x) = one number per input (N,) in the network's dtype; sensitive iff positive."""

    def __init__(self, program: Program, input_shape: tuple[int, ...], last: nn.Linear) -> None:
        super().__init__()
        self.program, self.last = program, last
        self.input_shape = input_shape

    def forward(self, x: Tensor) -> Tensor:
        return self.last(self.program(x.reshape(-1, *self.input_shape))).squeeze(1)


def strip(program: Program) -> Stripped:
    """Remove a final sigmoid, softmax or log-softmax, and scikit-learn's pair (1 - p, p).

    sigmoid(z) > 1/2 iff z > 0, and softmax keeps the order of two logits, so the class does not change; bounds could
    not be propagated through them.
    """
    steps, result = _steps(program), program.result
    while (step := steps.get(result)) is not None:
        if isinstance(step.layer, nn.Identity):
            result = step.inputs[0]
            continue
        if isinstance(step.layer, nn.Sigmoid | nn.Softmax | nn.LogSoftmax):
            return Stripped(_until(program, step.inputs[0]), step.label, pair=False)
        logit = _logit_of_pair(step, steps)
        if logit is not None:
            return Stripped(_until(program, logit), "(1 - Sigmoid, Sigmoid)", pair=True)
        break
    return Stripped(program, "", pair=False)


def one_score(stripped: Stripped, input_shape: tuple[int, ...], logit: int, threshold: float = 0.0) -> Score:
    """Return the score network, in evaluation mode without parameter gradients.

    logit: which of two logits (0 or 1) is the sensitive class's; of one score, 1 says that positive means sensitive.
    threshold: what the score must exceed. Raises UsageError for any other number of outputs.
    """
    program, shape = stripped.program, output_shape(stripped.program, input_shape)
    if shape == (1,):
        program = Program([*_steps(program).values(), _column(program.result)], program.source, "column")
        shape = (1, 1)
    if len(shape) != 2 or shape[1] not in (1, 2):
        many = "x".join(map(str, shape[1:]))
        raise UsageError(
            f"it gives {many} numbers per input: one score or two logits are needed; cut two classes out of a larger "
            "classifier before exporting it"
        )
    sign = 1.0 if logit == 1 else -1.0
    weights = [sign] if shape[1] == 1 else [-sign, sign]
    last = nn.Linear(len(weights), 1, dtype=torch.float64)
    with torch.no_grad():
        last.weight.copy_(torch.tensor([weights]))
        last.bias.fill_(-threshold)
    return Score(program, input_shape, last).eval().requires_grad_(False)


def output_shape(program: Program, input_shape: tuple[int, ...]) -> tuple[int, ...]:
    """Shape of what the program returns for one input, the batch axis included."""
    with torch.no_grad():
        return tuple(program(torch.zeros(1, *input_shape, dtype=torch.float64)).shape)


def _steps(program: Program) -> dict[str, Step]:
    return {
        output: Step(name.rpartition("_")[0], getattr(program, name), inputs, output)
        for name, inputs, output in program.wiring
    }


def _until(program: Program, result: str) -> Program:
    """The program up to another result, without the steps that it does not need."""
    steps = _steps(program)
    wanted, kept = {result}, []
    for step in reversed(steps.values()):
        if step.output in wanted:
            kept.append(step)
            wanted |= set(step.inputs)
    return Program(kept[::-1], program.source, result)


def _column(result: str) -> Step:
    return Step("Reshape", Reshape((1,)), (result,), "column")


def _logit_of_pair(step: Step, steps: dict[str, Step]) -> str | None:
    """The name of z where the step joins (1 - sigmoid(z), sigmoid(z))."""
    if not isinstance(step.layer, Concat) or len(step.inputs) != 2:
        return None
    first, second = (steps.get(name) for name in step.inputs)
    if first is None or second is None or not isinstance(second.layer, nn.Sigmoid):
        return None
    complement = (
        isinstance(first.layer, Affine)
        and first.inputs == (second.output,)
        and first.layer.scale is not None
        and first.layer.shift is not None
        and bool((first.layer.scale == -1).all() and (first.layer.shift == 1).all())
    )
    return second.inputs[0] if complement else None
