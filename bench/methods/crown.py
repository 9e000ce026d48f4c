"""CROWN on a network trained in the ordinary way; all bounds on one that others trained."""

import time
from collections.abc import Sequence
from typing import Any

from torch import Tensor

from baselines.bounds import METHODS, RadiusSearch
from bench.basics.settings import from_table
from bench.contract import Curve, Radii
from bench.methods._bounds import BoundPropagation, BoundsSettings, GivenMargins
from bench.methods._stage import Stage
from bench.methods.given import Effort


class CROWN(BoundPropagation):
    """Linear bounds passed backwards through a standard ReLU network; radii by a search per input.

    Guarantee: deterministic, all three norms native. Source: Zhang, Weng, Chen, Hsieh, Daniel, "Efficient Neural
    Network Robustness Certification with General Activation Functions", NeurIPS 2018; own
    implementation, equal to auto-LiRPA's (Xu et al., NeurIPS 2020) to rounding.
    """

    name = "crown"
    title = "CROWN"
    slot = 0
    reference = "Zhang et al., NeurIPS 2018"


class GivenBounds(GivenMargins, BoundPropagation):
    """Certificates from bounds of a network that was trained already.

    The search in each norm ends after its share of the stage's time, with what it has. The same inputs come together
    each time, so that a search goes on from the radii of the curve before.
    """

    name = "bounds"
    title = "Bounds"
    reference = "Gowal et al., 2018; Zhang et al., NeurIPS 2018; Xu et al., ICLR 2021"
    certificates = METHODS
    turn = 1
    chunk = 8
    asked_late = True
    _share = 0.0

    @classmethod
    def settings_for(cls, certificates: Sequence[str], effort: Effort) -> Any:
        written = [f"{name}:{domain}" for name in certificates for domain in ("free", "box")]
        return from_table(BoundsSettings, {"certificates": written}, "--certificates")

    def _in_time(
        self, x: Tensor, stage: Stage, curve: Curve, norms: Sequence[str], seed: int
    ) -> dict[str, Radii]:
        self._share = stage.share() * len(x) / len(norms)
        found = super()._in_time(x, stage, curve, norms, seed)
        for radii in found.values():
            stage.excuse(radii)
        return found

    def _search(self, x: Tensor, norm: str) -> RadiusSearch:
        search = super()._search(x, norm)
        search.until = None if self.stage is None else time.monotonic() + self._share
        return search
