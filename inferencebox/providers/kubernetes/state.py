"""What `up` wrote down about a platform on a cluster, so that any later process can take hold of it."""

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path

from inferencebox.errors import SetupProblem
from inferencebox.platform import Endpoint
from inferencebox.replacing import replace_file

FILE = "kubernetes.json"


@dataclass
class Record:
    """One platform on a cluster.

    Args:
        provider: who provides the cluster.
        release: name of the release it runs.
        kubectl: the program.
        images: name -> reference, of images of ours.
        endpoints: name -> address on this machine.
        capabilities: name -> nothing, or why it is not there.
        layers: seconds that each layer took to come up.
        critical_path: those that decided when all was up.
        changed: layers that the last bring-up installed.
    """

    provider: str
    release: str
    kubectl: str = ""
    images: dict[str, str] = field(default_factory=dict)
    endpoints: dict[str, Endpoint] = field(default_factory=dict)
    capabilities: dict[str, str | None] = field(default_factory=dict)
    layers: dict[str, float] = field(default_factory=dict)
    critical_path: list[str] = field(default_factory=list)
    changed: list[str] = field(default_factory=list)


def path(state: Path) -> Path:
    return state / FILE


def read(state: Path) -> Record:
    """The record.

    Raises:
        SetupProblem: there is none, or another version of this program wrote it.
    """
    try:
        raw = json.loads(path(state).read_text())
        return Record(**{**raw, "endpoints": {name: Endpoint(**value) for name, value in raw["endpoints"].items()}})
    except OSError:
        raise SetupProblem(f"no platform {state.name!r} is up", "run `ibox up`") from None
    except (ValueError, KeyError, TypeError):
        raise SetupProblem(
            f"{path(state)} was written by another version of this program", "ibox down, then ibox up"
        ) from None


def write(state: Path, record: Record) -> None:
    replace_file(path(state), json.dumps(asdict(record), indent=1))
