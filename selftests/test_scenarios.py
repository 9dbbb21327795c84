"""The promises are complete, and none is tested by two functions."""

import ast
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from inferencebox.paths import project_root
from inferencebox.scenarios import AREAS, DEMOS, catalogue, layer_names


def used_ids(folder: Path) -> Iterator[str]:
    """The ID of every @scenario("...") below a folder."""
    for file in sorted(folder.rglob("test_*.py")):
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            for call in getattr(node, "decorator_list", ()):
                if isinstance(call, ast.Call) and getattr(call.func, "id", "") == "scenario":
                    assert isinstance(call.args[0], ast.Constant), f"{file}: the ID is not a plain string"
                    yield call.args[0].value


def test_there_are_184_promises_and_all_are_well_formed() -> None:
    promises = catalogue()
    assert len(promises) == 184
    assert {promise.area for promise in promises.values()} == set(AREAS)
    assert set(DEMOS) <= {promise.feature for promise in promises.values()}
    assert {layer for promise in promises.values() for layer in promise.layers} == set(layer_names())


def test_every_demo_has_scenarios_to_show() -> None:
    shown = Counter(promise.feature for promise in catalogue().values() if promise.demo)
    assert all(shown[name] >= 3 for name in DEMOS)


def test_no_promise_is_tested_twice_and_none_is_unknown() -> None:
    used = Counter(used_ids(project_root() / "tests"))
    assert [name for name, times in used.items() if times > 1] == []
    assert [name for name in used if name not in catalogue()] == []
