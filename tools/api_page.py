"""python -m tools.api_page [OUT]: the public interface as web pages, from the docstrings (default: out/api)."""

import importlib
import sys
from pathlib import Path

import pdoc

# What people import; the rest is for those who read the code.
PUBLIC = (
    "fcnn",
    "baselines.smoothing",
    "baselines.bounds",
    "baselines.branch_and_bound",
    "baselines.lipschitz",
    "bench.contract",
    "bench.calibration",
    "bench.data",
)


def main(out: Path) -> Path:
    """Write the pages into ``out`` and return the first one."""
    for module in map(importlib.import_module, PUBLIC):
        for name in getattr(module, "__all__", ()):
            setattr(module, name, getattr(module, name))  # pdoc does not see what is imported on first use
    pdoc.render.configure(docformat="restructuredtext", footer_text="certbench")
    pdoc.pdoc(*PUBLIC, output_directory=out)
    return out / "index.html"


if __name__ == "__main__":
    print(main(Path(sys.argv[1]) if len(sys.argv) > 1 else Path("out") / "api"))
