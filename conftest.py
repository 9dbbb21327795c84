"""Loads every module in `fixtures/` as a plugin: a new noun needs no registration."""

from pathlib import Path

import pytest

from inferencebox.bytecode import keep_compiled

keep_compiled()
pytest.register_assert_rewrite("fixtures")
pytest_plugins = [
    f"fixtures.{module.stem}"
    for module in sorted((Path(__file__).parent / "fixtures").glob("*.py"))
    if module.stem != "__init__"
]
