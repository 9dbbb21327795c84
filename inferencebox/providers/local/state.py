"""What `up` wrote down about a running platform, so that any later process can take hold of it."""

import json
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path

from filelock import FileLock

from inferencebox.errors import SetupProblem
from inferencebox.platform import Endpoint, Workload
from inferencebox.replacing import replace_file


@dataclass
class Record:
    """One local platform.

    Args:
        release: name of the release it runs.
        endpoints: name -> address outside the box.
        capabilities: name -> nothing, or why it is not there.
        binaries: program -> path.
        workloads: replicas that run now.
        added: pods that came after the platform was up.
        layers: seconds that each layer took to come up.
    """

    release: str
    endpoints: dict[str, Endpoint] = field(default_factory=dict)
    capabilities: dict[str, str | None] = field(default_factory=dict)
    binaries: dict[str, str] = field(default_factory=dict)
    workloads: list[Workload] = field(default_factory=list)
    added: list[str] = field(default_factory=list)
    layers: dict[str, float] = field(default_factory=dict)


class RecordFile:
    """The record on disk; changes are serialised between processes."""

    def __init__(self, state: Path) -> None:
        self._path = state / "platform.json"
        self._lock = FileLock(state / "platform.lock")

    def read(self) -> Record:
        raw = json.loads(self._path.read_text())
        try:
            return Record(
                release=raw["release"],
                endpoints={name: Endpoint(**value) for name, value in raw["endpoints"].items()},
                capabilities=raw["capabilities"],
                binaries=raw["binaries"],
                workloads=[Workload(**value) for value in raw["workloads"]],
                added=raw["added"],
                layers=raw["layers"],
            )
        except (KeyError, TypeError):
            raise SetupProblem(
                f"{self._path} was written by another version of this program", "ibox down, then ibox up"
            ) from None

    def write(self, record: Record) -> None:
        replace_file(self._path, json.dumps(asdict(record), indent=1))

    def change(self, edit: Callable[[Record], None]) -> Record:
        """Read, edit and write under a lock."""
        with self._lock:
            record = self.read()
            edit(record)
            self.write(record)
            return record
