"""Which models a server shall serve."""

import json
from dataclasses import dataclass
from pathlib import Path

from model_server.artifacts import BY_KIND
from model_server.running import SetupProblem


@dataclass(frozen=True)
class ModelSpec:
    kind: str
    name: str
    directory: Path


def read_config(file: Path) -> list[ModelSpec]:
    """`{"models": [{"kind": ..., "name": ..., "dir": ...}]}`; a relative dir starts at the file."""
    try:
        models = json.loads(file.read_text())["models"]
        specs = [ModelSpec(one["kind"], one["name"], file.parent / one["dir"]) for one in models]
    except OSError as error:
        raise SetupProblem(f"cannot read {file}: {error.strerror}") from None
    except (ValueError, KeyError, TypeError):
        raise SetupProblem(f'{file} must be JSON: {{"models": [{{"kind": .., "name": .., "dir": ..}}]}}') from None
    if not specs or any(spec.kind not in BY_KIND for spec in specs):
        raise SetupProblem(f"{file} must list models whose kind is one of {', '.join(BY_KIND)}")
    if len({spec.name for spec in specs}) != len(specs):
        raise SetupProblem(f"{file} gives two models the same name")
    return specs
