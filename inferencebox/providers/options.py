"""How a platform should be, whoever provides it."""

from dataclasses import dataclass, field
from pathlib import Path


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


TELEMETRY = ("prometheus", "alertmanager", "jaeger", "chargeback", "telemetry.tenants")
"""The capabilities that a platform has only if it was brought up with telemetry."""
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
        nodes: how many nodes a provider with nodes makes.
        telemetry: with metrics, alerts, traces and cost (some seconds of work, and some hundred megabytes).
        logs: with access, audit and model logs in one place (about the same).
        owner: process whose end is the platform's end too, however it ends; none for a platform that stays.
        kind: of a cluster that is made.
    """

    models: str = "real"
    limits: str = "demo"
    nodes: int = 3
    telemetry: bool = True
    logs: bool = True
    owner: int | None = None
    kind: KindOptions = field(default_factory=KindOptions)
