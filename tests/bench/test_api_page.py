"""The API page shows the public names with their docstrings, and pdoc finds nothing to complain about."""

import importlib
import warnings
from types import ModuleType

import pytest

from tools.api_page import PUBLIC, main


@pytest.mark.slow
def test_every_public_name_is_on_its_page(tmp_path):
    with warnings.catch_warnings():
        warnings.filterwarnings("error", category=UserWarning, module="pdoc")
        index = main(tmp_path)
    assert all(name.replace(".", "/") in index.read_text(encoding="utf-8") for name in PUBLIC)
    for name in PUBLIC:
        page = (tmp_path / f"{name.replace('.', '/')}.html").read_text(encoding="utf-8")
        module = importlib.import_module(name)
        for public in getattr(module, "__all__", []):
            # A module among the names has a page of its own.
            assert isinstance(getattr(module, public), ModuleType) or f'id="{public}"' in page, (
                f"{name}.{public}"
            )
