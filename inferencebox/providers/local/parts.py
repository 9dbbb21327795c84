"""The parts of a local platform, the same for whoever brings it up and whoever uses it."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from . import logs
from .control_plane import ControlPlane, Kubectl
from .door import Door
from .logs import Logs
from .mesh import Mesh
from .network import Networks
from .readiness import Readiness
from .supervisor import Supervisor
from .telemetry import Telemetry


@dataclass(frozen=True)
class Parts:
    """Cheap to make again: what they know is in the state folder.

    Args:
        state: the platform's folder.
        binaries: program -> path.
    """

    state: Path
    binaries: Mapping[str, Path]

    @property
    def control_plane(self) -> ControlPlane:
        return ControlPlane(self.state / "kubernetes", self.binaries, self.state / "logs" / logs.AUDIT)

    @property
    def kubectl(self) -> Kubectl:
        return Kubectl(self.binaries["kubectl"], self.state / "kubeconfig")

    @property
    def mesh(self) -> Mesh:
        home = self.state / "mesh"
        return Mesh(home, self.binaries, home / "envoy_bootstrap.json", self.control_plane.kubeconfig)

    @property
    def telemetry(self) -> Telemetry:
        return Telemetry(self.state / "telemetry", self.binaries)

    @property
    def collected(self) -> Logs:
        return Logs(self.state / "collected-logs", self.state / "logs", self.telemetry.targets, self.binaries)

    @property
    def door(self) -> Door:
        return Door(self.state)

    @property
    def networks(self) -> Networks:
        return Networks(self.state)

    @property
    def supervisor(self) -> Supervisor:
        return Supervisor(self.state)

    @property
    def readiness(self) -> Readiness:
        return Readiness(self.door, self.supervisor)
