"""What there is to compare: one line for every suite, method and data set."""

from bench.data import list_datasets
from bench.methods import registered_methods
from bench.suites.suite import load_suite, suite_names


def listing() -> str:
    """One line for every suite, method and data set."""
    lines = ["Suites:", *(f"  {name:22} {load_suite(name).title}" for name in suite_names())]
    lines += ["", "Methods:"]
    for name, method in registered_methods().items():
        lines.append(f"  {name:22} {method.title}; {method.guarantee}; {method.reference}")
    lines += ["", "Data sets (others: NAME.npz or an image folder in --data-dir):"]
    return "\n".join(lines + [f"  {name:22} {line}" for name, line in list_datasets()])
