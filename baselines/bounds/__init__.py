"""Bound propagation (IBP, CROWN-IBP, CROWN, alpha-CROWN): certified radii for plain networks, see ``certify``."""

from baselines.bounds.certify import CertifiedRadii, RadiusSearch, certified_radii, certify, lower_bounds
from baselines.bounds.geometry import Balls
from baselines.bounds.propagation import METHODS, BoundedScore, SlopeSettings
from baselines.bounds.unsupported import UnsupportedLayer

__all__ = [
    "METHODS",
    "Balls",
    "BoundedScore",
    "CertifiedRadii",
    "RadiusSearch",
    "SlopeSettings",
    "UnsupportedLayer",
    "certified_radii",
    "certify",
    "lower_bounds",
]
