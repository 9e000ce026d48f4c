"""Our own branch and bound for small ReLU networks, in the style of alpha,beta-CROWN: see ``verify``, ``certify``."""

from baselines.branch_and_bound.chain import Chain, UnsupportedNetwork, to_chain, to_chains
from baselines.branch_and_bound.radius import CertifiedRange, certify, certify_all
from baselines.branch_and_bound.search import verify
from baselines.branch_and_bound.settings import Budget, Ending, Search, Status, Verdicts

__all__ = [
    "Budget",
    "CertifiedRange",
    "Chain",
    "Ending",
    "Search",
    "Status",
    "UnsupportedNetwork",
    "Verdicts",
    "certify",
    "certify_all",
    "to_chain",
    "to_chains",
    "verify",
]
