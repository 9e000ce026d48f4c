"""The import of auto-LiRPA: lazy, without traces in the process, and untouched when a newer release is installed."""

import subprocess
import sys
import types
from importlib import metadata
from pathlib import Path

import pytest

from baselines.bounds import compat

ROOT = Path(__file__).parents[2]


@pytest.fixture
def fresh_import():
    """Let the next call of ``load_auto_lirpa`` import again, and forget what it found afterwards."""
    compat.load_auto_lirpa.cache_clear()
    yield
    compat.load_auto_lirpa.cache_clear()


@pytest.mark.parametrize(
    ("version", "needed"),
    [("0.3", True), ("0.2.1", True), ("0.3.1", True), ("0.4", False), ("0.10", False), ("1.0", False)],
)
def test_only_old_releases_are_adapted(version, needed):
    assert compat.needs_patches(version) is needed


def test_a_newer_release_is_used_as_it_is(monkeypatch, fresh_import):
    class BoundedModule:
        def _named_members(self, get_members_fn, prefix="", recurse=True, remove_duplicate=True):
            return "its own"

    newer = types.ModuleType("auto_LiRPA")
    newer.BoundedModule = BoundedModule
    monkeypatch.setitem(sys.modules, "auto_LiRPA", newer)
    monkeypatch.setattr(metadata, "version", lambda name: "0.6.0")
    before = BoundedModule._named_members
    assert compat.load_auto_lirpa() is newer
    assert BoundedModule._named_members is before
    assert "numpy.lib.arraysetops" not in sys.modules


def test_without_auto_lirpa_the_message_says_how_to_install_it(monkeypatch, fresh_import):
    def missing(name):
        raise metadata.PackageNotFoundError(name)

    monkeypatch.setattr(metadata, "version", missing)
    with pytest.raises(ImportError, match=r"auto-LiRPA is not installed: run \./run_all\.sh"):
        compat.load_auto_lirpa()


@pytest.mark.slow
def test_the_import_is_lazy_and_leaves_the_process_as_it_was():
    script = """
import logging, sys, warnings
import baselines.bounds, torch
from baselines.bounds.compat import load_auto_lirpa
assert "auto_LiRPA" not in sys.modules
filters, handlers = list(warnings.filters), list(logging.root.handlers)
load_auto_lirpa()
assert "auto_LiRPA" in sys.modules
assert warnings.filters == filters and logging.root.handlers == handlers
assert "numpy.lib.arraysetops" not in sys.modules
assert not hasattr(torch.onnx.symbolic_helper, "_set_opset_version")
"""
    subprocess.run([sys.executable, "-c", script], cwd=ROOT, check=True)
