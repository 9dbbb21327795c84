"""The handle on one running platform that probes, fixtures and scenarios use: one class, whoever provides it."""

import contextlib
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path
from subprocess import CompletedProcess

from inferencebox.errors import SetupProblem


@dataclass(frozen=True)
class Endpoint:
    """Where something answers, reachable from the test process by ordinary TCP."""

    scheme: str
    host: str
    port: int

    @property
    def url(self) -> str:
        return f"{self.scheme}://{self.host}:{self.port}"


@dataclass(frozen=True)
class WorkloadSpec:
    """One replica to run: a process of ours beside a sidecar, or (``mesh=False``) without one.

    Args:
        namespace: tenant or system namespace; must exist.
        name: unique within the namespace; the replica's name (`x-pod`).
        app: value of label ``app``; Services select by it.
        version: value of label ``version``; subsets and `x-model-version` use it.
        program: what runs: ``stub-model``, ``model``, ``client``, ``jwt-server``, ... (the provider knows how).
        env: environment of the program.
        locality: Istio locality ``region/zone/subzone`` or empty.
        mesh: whether it has a sidecar.
        service_account: identity; default the app's name.
        certificate_life: life of its sidecar's certificates, as a Go duration (SEC-27).
        readiness: whether the mesh sends it traffic only while it says that it is ready, as with a readiness probe.
    """

    namespace: str
    name: str
    app: str
    version: str = "v1"
    program: str = "stub-model"
    env: Mapping[str, str] = field(default_factory=dict)
    labels: Mapping[str, str] = field(default_factory=dict)
    locality: str = ""
    mesh: bool = True
    service_account: str = ""
    certificate_life: str = "24h"
    readiness: bool = False


@dataclass(frozen=True)
class Workload:
    """A running replica.

    Args:
        port: where others reach it: its program's port, or that of what queues requests before the program.
    """

    namespace: str
    name: str
    app: str
    version: str
    address: str
    labels: Mapping[str, str] = field(default_factory=dict)
    locality: str = ""
    mesh: bool = True
    service_account: str = ""
    port: int = 8080


@dataclass(frozen=True)
class ComponentStatus:
    """One part of the platform as the supervisor (or the cluster) sees it.

    Args:
        state: running, stopped or failed.
        added: a replica that came after the platform was up (a test's own).
    """

    name: str
    state: str
    pid: int | None = None
    log: Path | None = None
    detail: str = ""
    added: bool = False


@dataclass(frozen=True)
class RunningProgram:
    """One process of a program that the release pins, asked what it is.

    Args:
        name: as the release calls it.
        pid, started: which process it is; both stay the same for as long as it lives.
        told: what it says about its version; of one that says nothing, what its file or its node says of it.
        tier: of a gateway's proxy, ``tier-1`` or ``tier-2``.
    """

    name: str
    pid: int
    started: str
    told: str
    tier: str = ""


class Observer:
    """Is told what is done to a platform through its handle. What one does not care for stays as it is here."""

    def adds(self, specs: Sequence[WorkloadSpec]) -> None:
        """Replicas are about to be started."""

    def ends(self, component: str) -> AbstractContextManager[None]:
        """Within this a component is stopped or killed."""
        return contextlib.nullcontext()


class Platform(ABC):
    """A running platform.

    Built from what ``up`` wrote down: cheap to make, the same in each xdist worker.
    """

    provider: str
    instance: str
    release: str
    capabilities: Mapping[str, str | None]
    endpoints: Mapping[str, Endpoint]
    kubeconfig: Path
    logs: Path
    edge_ca: Path
    """Who signed the certificate of the TLS entrance."""
    mesh_ca: Path
    """Who signs the workloads' certificates."""
    changed: Sequence[str] = ()
    """Layers that the last bring-up installed, or installed anew, where it can tell."""
    signing_keys: Path
    """The JWT server's keys: what an insider could get hold of, so that forgeries are as good as they can be."""
    observers: Sequence[Observer] = ()

    def observe(self, observer: Observer) -> None:
        """Have somebody told, from now on, of what is done through this handle."""
        self.observers = (*self.observers, observer)

    @abstractmethod
    def endpoint(self, name: str) -> Endpoint:
        """The address of a named entrance: gateway, gateway-tls, tier2, jwt-server, kubernetes, ..."""

    @abstractmethod
    def forward(self, workload: Workload, port: int) -> Endpoint:
        """An address that leads to one port of one replica, as ``kubectl port-forward`` does: past its sidecar."""

    @abstractmethod
    def reach(self, address: str, port: int) -> Endpoint:
        """A way to an address of the platform's network, from outside the mesh: what an outsider's connection meets."""

    @abstractmethod
    def run_in(
        self, workload: Workload, argv: Sequence[str], stdin: bytes | None = None, timeout: float = 30
    ) -> CompletedProcess[bytes]:
        """Run a command in that replica's network, as ``kubectl exec`` would."""

    @abstractmethod
    def run_beside(
        self, argv: Sequence[str], stdin: bytes | None = None, timeout: float = 30
    ) -> CompletedProcess[bytes]:
        """Run a command in the platform's network but outside the mesh and outside every workload."""

    @abstractmethod
    def workloads(self, namespace: str | None = None, **labels: str) -> list[Workload]: ...

    def add_workloads(self, specs: Sequence[WorkloadSpec]) -> list[Workload]:
        """Start replicas; returns when each is ready and routable in the mesh."""
        for observer in self.observers:
            observer.adds(specs)
        return self._add_workloads(specs)

    @abstractmethod
    def _add_workloads(self, specs: Sequence[WorkloadSpec]) -> list[Workload]: ...

    def starting(self) -> AbstractContextManager[None]:
        """To be held while replicas start that somebody else makes (`add_workloads` holds it itself): where starting
        takes a machine's cores, of several at once none is ready soon, and what others measure meanwhile is not the
        platform's."""
        return contextlib.nullcontext()

    @abstractmethod
    def cpu_seconds(self, workload: Workload) -> float:
        """Processor time that a replica's program has used since it began, in seconds, as the kernel says."""

    @abstractmethod
    def remove_workloads(self, workloads: Sequence[Workload]) -> None: ...

    def container(self, program: str, arguments: Sequence[str] = ()) -> tuple[str, list[str]]:
        """Image and command by which a program of ours (see `WorkloadSpec`) runs in a pod that somebody else makes.

        Raises:
            SetupProblem: the provider runs no pods.
        """
        raise SetupProblem(f"the provider {self.provider} runs no pods", "use --provider kind")

    def stop(self, component: str) -> None:
        """Stop a component and keep it stopped (an outage)."""
        with self._watched_ending(component):
            self._stop(component)

    @abstractmethod
    def _stop(self, component: str) -> None: ...

    @abstractmethod
    def start(self, component: str) -> None:
        """Start a stopped component; returns when it is ready."""

    def kill(self, component: str) -> None:
        """End a component's process at once (SIGKILL). It is restarted as the platform would."""
        with self._watched_ending(component):
            self._kill(component)

    @abstractmethod
    def _kill(self, component: str) -> None: ...

    @contextlib.contextmanager
    def _watched_ending(self, component: str) -> Iterator[None]:
        with contextlib.ExitStack() as watched:
            for observer in self.observers:
                watched.enter_context(observer.ends(component))
            yield

    def load_rules(self, name: str, content: str | None) -> None:
        """Give Prometheus a file of rules beside the shipped ones, or take it away (`None`); in force when it returns.

        Raises:
            SetupProblem: Prometheus refuses them, in its words; or the provider has none.
        """
        raise SetupProblem(f"the provider {self.provider} has no Prometheus yet", "use --provider local")

    @abstractmethod
    def running(self, *names: str) -> list[RunningProgram]:
        """The processes of programs that the release pins (only of these names, if any are given)."""

    @abstractmethod
    def components(self) -> list[ComponentStatus]: ...
