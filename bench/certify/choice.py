"""Which certificates a network admits, which are asked for, and the methods that issue them."""

import copy
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from baselines.bounds import METHODS as BOUNDS
from baselines.bounds import BoundedScore, UnsupportedLayer
from baselines.branch_and_bound import UnsupportedNetwork, to_chains
from baselines.layered import LayeredNetwork
from bench.basics.errors import UsageError, unknown
from bench.basics.settings import from_table
from bench.kept.given import (
    SMOOTHING,
    Given,
    GivenBounds,
    GivenBranchAndBound,
    GivenFCNN,
    GivenMargins,
    margins_of,
)
from bench.methods._bounds import BoundsSettings
from bench.methods._smoothing import SmoothingSettings
from bench.methods.alpha_beta_crown import AlphaBetaCROWNSettings
from bench.methods.fcnn import FCNNSettings
from fcnn.certify import CERTIFICATES as TANGENTS
from fcnn.classifier import FeatureConvexClassifier

COMPLETE = "alpha_beta_crown"
CERTIFICATES = (*TANGENTS, *BOUNDS, COMPLETE, *SMOOTHING)
DOMAINS = ("free", "box")
NOT_CONVEX = "the network is not a feature-convex checkpoint (.safetensors)"


@dataclass(frozen=True)
class Noise:
    """How a smoothed classifier is made: standard deviation of the noise per coordinate, and draws per input."""

    sigma: float | None = None
    draws: int = 10_000

    def __post_init__(self) -> None:
        if self.sigma is not None and not 0 < self.sigma < float("inf"):
            raise UsageError(f"--sigma {self.sigma}: give a number > 0, for example 0.25")
        if self.draws < 100:
            raise UsageError(f"--draws {self.draws}: give at least 100, a few thousand for useful radii")


def obstacles(
    network: nn.Module, input_shape: tuple[int, ...], device: torch.device, unread: str = ""
) -> tuple[dict[str, str], LayeredNetwork | None]:
    """Return certificate -> why it cannot be issued for the network, empty where it can; and what bounds work on.

    unread: why the network was not read, if only onnxruntime runs it.
    """
    convex = "" if isinstance(network, FeatureConvexClassifier) else NOT_CONVEX
    bounded, chain, layered = unread, unread, None
    if not unread:
        margins = copy.deepcopy(margins_of(network)).to(device)
        try:
            layered = BoundedScore(margins, input_shape, device).layered
            chain = ""
        except UnsupportedLayer as error:
            bounded = chain = str(error)
    if layered is not None:
        try:
            to_chains(layered, input_shape, device)
        except UnsupportedNetwork as error:
            chain = str(error)
    against = {
        **dict.fromkeys(TANGENTS, convex),
        **dict.fromkeys(BOUNDS, bounded),
        COMPLETE: chain,
        **dict.fromkeys(SMOOTHING, ""),
    }
    return against, layered


def choose(wanted: Sequence[str] | None, against: dict[str, str], noise: Noise) -> tuple[str, ...]:
    """Return the certificates to issue, in canonical order; raise UsageError for one that does not apply.

    Unless some are named: the four of a feature-convex network, else all bounds and branch and bound where they apply,
    and smoothing under Gaussian noise where sigma is given.
    """
    for name in wanted or ():
        if name not in CERTIFICATES:
            raise unknown("certificate", name, CERTIFICATES)
        if against[name]:
            raise UsageError(f"certificate {name!r} does not apply: {against[name]}")
        if name in SMOOTHING and noise.sigma is None:
            raise UsageError(
                f"certificate {name!r} needs --sigma, the standard deviation of its noise, for example 0.25"
            )
    if wanted:
        return tuple(name for name in CERTIFICATES if name in wanted)
    groups = [tuple(TANGENTS)] if not against["refined"] else [BOUNDS, (COMPLETE,)]
    chosen = [name for group in groups for name in group if not against[name]]
    chosen += ["smoothing_gaussian"] if noise.sigma is not None else []
    if not chosen:
        raise UsageError(
            f"no certificate applies without noise ({against['crown']}): give --sigma, for example 0.25, for "
            "randomized smoothing, which only runs the network"
        )
    return tuple(chosen)


def methods_for(
    network: nn.Module,
    layered: LayeredNetwork | None,
    chosen: Sequence[str],
    noise: Noise,
    seconds: float,
    device: Any,
) -> list[Given]:
    """Return the methods that issue the chosen certificates, free and in the box where both exist.

    layered: the network as bounds work on it, if it is known.
    """
    found: list[Given] = []
    tangents = tuple(f"{name}:{domain}" for name in chosen if name in TANGENTS for domain in TANGENTS[name])
    bounds = tuple(f"{name}:{domain}" for name in chosen if name in BOUNDS for domain in DOMAINS)
    if tangents:
        found.append(GivenFCNN(_issuing(FCNNSettings, tangents), device))
    if bounds:
        found.append(GivenBounds(_issuing(BoundsSettings, bounds), device))
    if COMPLETE in chosen:
        found.append(GivenBranchAndBound(AlphaBetaCROWNSettings(seconds=seconds), device))
    for name in chosen:
        if name in SMOOTHING:
            assert noise.sigma is not None  # ``choose`` refuses it
            settings = SmoothingSettings(
                sigma=noise.sigma, draws=noise.draws, draws_predict=noise.draws // 10
            )
            found.append(SMOOTHING[name](settings, device))
    for method in found:
        method.given = copy.deepcopy(network)
        if isinstance(method, GivenMargins):
            method.layered = layered
    return found


def _issuing(kind: type[Any], certificates: Sequence[str]) -> Any:
    """The default settings of a method with these certificates."""
    return from_table(kind, {"certificates": list(certificates)}, "--certificates")


def described(against: dict[str, str], chosen: Sequence[str]) -> str:
    """Say which certificates apply, one line per group."""
    lines = []
    for names in (TANGENTS, BOUNDS, (COMPLETE,), SMOOTHING):
        why = against[next(iter(names))]
        state = f"no: {why}" if why else "yes" if set(names) & set(chosen) else "yes, on request"
        lines.append(f"  {', '.join(names)}: {state}")
    return "\n".join(["Certificates that apply:", *lines])
