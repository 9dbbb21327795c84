"""How a platform should be, whoever provides it."""

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from inferencebox.providers.cluster.plan import Plan


@dataclass(frozen=True)
class KindOptions:
    """What pytest-kind's options can ask for; empty for what the release pins.

    Args:
        cluster_name: kind's name of the cluster.
        image: node image, in the engine or to be pulled by it.
        kind: the kind command.
        kubectl: the kubectl command.
    """

    cluster_name: str = ""
    image: str = ""
    kind: Path | None = None
    kubectl: Path | None = None


@dataclass(frozen=True)
class ClusterOptions:
    """Which cluster of somebody else's, and who agrees to what is done there.

    Args:
        kubeconfig: its client configuration; none for `$KUBECONFIG`, or kubectl's usual file.
        context: of that; empty for its current one.
        approve: is shown what would be installed, and returns if that is agreed to.
    """

    kubeconfig: Path | None = None
    context: str = ""
    approve: "Callable[[Plan], None]" = lambda plan: plan.require_nothing_to_do()


TELEMETRY = ("prometheus", "alertmanager", "jaeger", "chargeback", "telemetry.tenants")
"""The capabilities that a platform has only if it was brought up with telemetry."""
DASHBOARDS = ("grafana", "kiali")
"""What comes with telemetry where its images can be had: only registries have them."""
LOGS = ("loki",)
"""The capabilities that a platform has only if its logs are collected."""
LOG_PROGRAMS = ("loki", "log-collector")
"""What that takes, of the release's programs."""


@dataclass(frozen=True)
class PlatformOptions:
    """
    Args:
        models: ``real`` small models, or ``stub`` servers in their place.
        limits: ``strict`` as promised (SPEC 1.5), or ``demo``, a hundred times that (SPEC D18).
        nodes: how many nodes a provider with nodes makes; none said: as many as there are, else 3.
        telemetry: with metrics, alerts, traces and cost (some seconds of work, and some hundred megabytes).
        logs: with access, audit and model logs in one place (about the same).
        owner: process whose end is the platform's end too, however it ends; none for a platform that stays.
        kind: of a cluster that is made.
        cluster: one that is there.
    """

    models: str = "real"
    limits: str = "demo"
    nodes: int | None = None
    telemetry: bool = True
    logs: bool = True
    owner: int | None = None
    kind: KindOptions = field(default_factory=KindOptions)
    cluster: ClusterOptions = field(default_factory=ClusterOptions)
