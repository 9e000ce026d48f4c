"""The union of feature-convex detectors: sensitive if any of them says so, with the largest of their radii."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import torch
from torch import Tensor, nn

from bench.basics.errors import UsageError, unknown
from bench.basics.seeds import derive_seed
from bench.basics.settings import from_table
from bench.calibration import recall_threshold
from bench.contract import NORMS, Curve, FitContext, Method, Radii, TrainingData
from bench.methods.fcnn import FCNN
from bench.methods.fcnn_learned import FCNNLearned

MEMBERS: dict[str, type[Method]] = {method.name: method for method in (FCNN, FCNNLearned)}
# A convex score on pixels for every norm, and one on a learned map for l2.
DEFAULT_MEMBERS = {"pixels": {"method": "fcnn"}, "l2": {"method": "fcnn_learned"}}


@dataclass(frozen=True)
class FCNNUnionSettings:
    """Recipe of a union.

    members: name -> table of ``method`` (fcnn or fcnn_learned) and its settings.
    kept_recall: the recall of the other class, on validation data, at which each member's scores are made to agree:
    there all are 0, and one threshold then moves all of them.
    certificate: which of the members' certificates to issue.
    """

    members: dict[str, dict[str, Any]] = field(default_factory=lambda: dict(DEFAULT_MEMBERS))
    kept_recall: float = 0.99
    certificate: Literal["closed_form:free", "refined:free"] = "closed_form:free"

    def __post_init__(self) -> None:
        if not self.members:
            raise ValueError("members is empty: name at least one detector")
        if not 0 < self.kept_recall < 1:
            raise ValueError(f"kept_recall = {self.kept_recall}: choose a share in (0, 1)")
        self.methods(torch.device("cpu"))

    def methods(self, device: torch.device) -> dict[str, Method]:
        """The untrained members. Raises UsageError for a method or settings that are not known."""
        return {name: self._member(name, table, device) for name, table in self.members.items()}

    def _member(self, name: str, table: Any, device: torch.device) -> Method:
        where = f"members.{name}"
        if not isinstance(table, dict) or "method" not in table:
            raise UsageError(f'{where} = {table!r}: give a table with method = "fcnn" or "fcnn_learned"')
        if table["method"] not in MEMBERS:
            raise unknown(f"{where}: method", table["method"], MEMBERS)
        kind = MEMBERS[table["method"]]
        settings = {key: value for key, value in table.items() if key != "method"}
        return kind(
            from_table(kind.Settings, {**settings, "certificates": [self.certificate]}, where), device
        )


class UnionScore(nn.Module):
    """score(x) = max_j (score_j(x) - offset_j) / scale_j - threshold over the members j, (N, *shape) -> (N,)."""

    offsets: Tensor
    scales: Tensor
    threshold: Tensor

    def __init__(self, members: dict[str, nn.Module]) -> None:
        super().__init__()
        self.members = nn.ModuleDict(members)
        self.register_buffer("offsets", torch.zeros(len(members), dtype=torch.float64))
        self.register_buffer("scales", torch.ones(len(members), dtype=torch.float64))
        self.register_buffer("threshold", torch.zeros((), dtype=torch.float64))

    def forward(self, x: Tensor) -> Tensor:
        scores = [member(x) + member.threshold for member in self.members.values()]
        return self.joined(scores) - self.threshold

    def joined(self, scores: Sequence[Tensor]) -> Tensor:
        """The union's scores (N,) from each member's, all (N,), before any threshold."""
        parts = zip(scores, self.offsets, self.scales, strict=True)
        return torch.stack([(score - offset) / scale for score, offset, scale in parts]).amax(dim=0)

    def member_thresholds(self) -> list[float]:
        """What each member's own score is compared with."""
        return (self.offsets + self.threshold * self.scales).tolist()


class FCNNUnion(Method):
    """Union of feature-convex classifiers, on pixels and on learned maps: different maps serve different norms.

    Guarantee: deterministic, native where a member's is. Inside a member's radius that member stays positive, hence the
    union does: docs/certificates.md. Source of the members: Pfrommer et al., NeurIPS 2023 (arXiv 2302.01961).
    """

    name = "fcnn_union"
    title = "FCNN, union"
    kind = "feature_convex"
    slot = 3
    apart = ", learned map"
    reference = "Pfrommer et al., NeurIPS 2023"
    guarantee = "deterministic"
    Settings = FCNNUnionSettings

    model: UnionScore

    def __post_init__(self) -> None:
        super().__post_init__()
        self.members = self.settings.methods(self.device)

    def curves(self) -> Sequence[Curve]:
        certificate, domain = self.settings.certificate.split(":")
        native = {norm for member in self.members.values() for norm in member.curves()[0].native}
        return [Curve(certificate, domain, native=tuple(norm for norm in NORMS if norm in native))]

    def network(self, input_shape: tuple[int, ...]) -> nn.Module:
        for member in self.members.values():
            member.model = member.network(input_shape)
        return UnionScore({name: member.model for name, member in self.members.items()})

    def fit(self, data: TrainingData, context: FitContext) -> None:
        for index, (name, member) in enumerate(self.members.items()):
            checkpoint = context.checkpoint and context.checkpoint.with_name(
                f"{context.checkpoint.name}.{name}"
            )
            member.fit(data, FitContext(derive_seed(context.seed, name), checkpoint, context.progress))
            member.set_threshold(0.0)
            score = member.decision_range(data.x_val, context.seed)[0].double()
            sensitive = data.y_val > 0.5
            offset = recall_threshold(score.cpu(), sensitive.cpu(), self.settings.kept_recall)
            above = score[sensitive & (score > offset)] - offset
            self.model.offsets[index] = offset
            self.model.scales[index] = above.median() if len(above) else 1.0

    def score(self, x: Tensor) -> Tensor:
        self._set_members([0.0] * len(self.members))
        joined = self.model.joined([member.score(x) for member in self.members.values()])
        return joined - self.model.threshold

    def decision_range(self, x: Tensor, seed: int) -> tuple[Tensor, Tensor]:
        self._set_members([0.0] * len(self.members))
        ranges = [member.decision_range(x, seed)[0].double() for member in self.members.values()]
        scores = self.model.joined(ranges) - self.model.threshold
        return scores, scores

    def predict(self, x: Tensor, seed: int) -> Tensor:
        self._set_members(self.model.member_thresholds())
        return torch.stack([member.predict(x, seed) for member in self.members.values()]).amax(dim=0)

    def certify(self, x: Tensor, curve: Curve, norms: Sequence[str], seed: int) -> dict[str, Radii]:
        self._set_members(self.model.member_thresholds())
        found = [member.certify(x, member.curves()[0], norms, seed) for member in self.members.values()]
        return {
            norm: Radii.from_radius(
                torch.stack([torch.as_tensor(radii[norm].radius) for radii in found]).amax(dim=0)
            )
            for norm in norms
        }

    def _set_members(self, thresholds: Sequence[float]) -> None:
        for member, threshold in zip(self.members.values(), thresholds, strict=True):
            member.set_threshold(threshold)

    def use_linear(self, weight: Tensor, bias: float) -> None:
        for member in self.members.values():
            member.use_linear(weight, bias)
        self.model = UnionScore({name: member.model for name, member in self.members.items()}).to(self.device)

    def load_state(self, state: dict[str, Tensor]) -> None:
        for name, member in self.members.items():
            prefix = f"members.{name}."
            own = {
                key.removeprefix(prefix): tensor for key, tensor in state.items() if key.startswith(prefix)
            }
            member.load_state(own)
        self.model.load_state_dict(state)
