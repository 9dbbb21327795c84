"""Brings the platform up on a Kubernetes cluster that is there: its layers, pods of ours, and the ways in."""

import json
import socket
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from inferencebox import policies
from inferencebox.errors import SetupProblem
from inferencebox.layers import dag
from inferencebox.layers.catalogue import Layer, layers
from inferencebox.layers.choice import Choice, Obstacle, choose
from inferencebox.layers.documents import Kitchen, Small
from inferencebox.layers.fingerprint import fingerprint
from inferencebox.layers.install import Installer, Record
from inferencebox.layers.others import Others
from inferencebox.manifests import Document
from inferencebox.paths import state_dir
from inferencebox.platform import Endpoint
from inferencebox.probes.kubernetes import Kube
from inferencebox.programs import Progress, module_files, provide
from inferencebox.providers import pins
from inferencebox.providers.capabilities import logs, telemetry
from inferencebox.providers.options import PlatformOptions
from inferencebox.release import Release

from . import about, makers, state
from .capabilities import CAPABILITIES, SHARED, confirmed
from .door import DIRECT, SERVICE, Door
from .makers import certificate_of
from .objects import selector_of
from .platform import MONITORING, TIER_1, KubernetesPlatform

PROGRAMS = ("kubectl", "helm")
SYSTEM = "envoy-gateway-system"
WISHED_PORTS = {
    "gateway": 8080, "jwt-server": 8081, "management": 8085, "grafana": 3000, "prometheus": 9090, "jaeger": 16686,
    "kiali": 20001,
}  # fmt: skip
"""SPEC 1.8; another where somebody has it."""
MONITORING_PORTS: Mapping[str, Mapping[str, int]] = {
    "prometheus": {
        "prometheus": 9090, "alertmanager": 9093, "jaeger": 16686, "prom-label-proxy": 8081, "chargeback": 8090,
        "alert-sink": 8080,
    },
    "loki": {"loki": 3100},
    "grafana": {"grafana": 3000},
    "kiali": {"kiali": 20001},
}  # fmt: skip
"""Capability -> entrances of a platform that has it."""
CONNECT_SECONDS = 1.0


@dataclass(frozen=True)
class Target:
    """A cluster to bring a platform up on.

    Args:
        provider: who provides it.
        images: name of an image -> reference by which its nodes have it.
        small: whether its machine is small.
        choice: what is installed there.
        is_shared: whether others have objects there, which are left as they are.
    """

    provider: str
    images: Mapping[str, str]
    small: bool
    choice: Choice
    is_shared: bool = False


def bring_up_on(
    instance: str,
    release: Release,
    options: PlatformOptions,
    target: Target,
    progress: Progress,
    listener: dag.Listener,
    loading: Mapping[str, dag.Step],
    before: dag.Timeline,
) -> KubernetesPlatform:
    """A platform that is up when this returns; layers that are as they should be are left as they are.

    The client configuration of the cluster is `kubeconfig` in the instance's state folder.

    Args:
        loading: gets the images to the nodes; layers whose objects run pods wait for all of it.
        before: what it took to have the cluster.

    Raises:
        SetupProblem: a layer could not be installed: which, and why.
    """
    home = state_dir(instance)
    kube = Kube(home / "kubeconfig")
    programs = provide(release, PROGRAMS, progress)
    chosen = target.choice.layers
    watched, collected = "telemetry" in chosen, "loki" in chosen
    kitchen = _kitchen(instance, release, options, watched, target, kube, programs["helm"], progress)
    installer = Installer(kube, kitchen, listener, others=Others(kube, instance) if target.is_shared else None)
    steps = {**loading, **installer.steps(chosen)}
    for name, layer in chosen.items():
        if layer.pods:
            steps[name] = dag.Step(steps[name].run, [*loading, *steps[name].after])
    try:
        timeline, lost = dag.run(steps, listener, keep_going=True), {}
    except dag.StepsFailed as failed:
        timeline, lost = failed.timeline, lost_by(failed, chosen)
    record = state.Record(
        provider=target.provider,
        release=release.name,
        images=dict(target.images),
        capabilities={
            **CAPABILITIES,
            **telemetry(watched),
            **logs(collected),
            **target.choice.given,
            **lost,
            **(SHARED if target.is_shared else {}),
        },
        layers={**before.seconds, **timeline.seconds},
        critical_path=[*before.critical_path({}), *timeline.critical_path(steps)],
        changed=installer.changed,
    )
    platform = take_hold(instance, kube, record, release, options, progress)
    record.capabilities = confirmed(platform, kube, record.capabilities)
    state.write(home, record)
    pins.write(pins.path(home), release)
    about.write(kube, about.About(instance, list(chosen), record))
    return KubernetesPlatform(instance)


def chosen_layers(kube: Kube, options: PlatformOptions, obstacle: Obstacle) -> Choice:
    """What the platform on this cluster will consist of.

    Args:
        obstacle: why its nodes can't have an image.
    """
    asked = {name for name, wished in (("telemetry", options.telemetry), ("logs", options.logs)) if wished}
    return choose(layers(), asked, Record(kube).read(), obstacle)


def take_hold(
    instance: str, kube: Kube, record: state.Record, release: Release, options: PlatformOptions, progress: Progress
) -> KubernetesPlatform:
    """Have the ways into a platform that is on a cluster, and write down on this machine where they are.

    Args:
        record: what is known of it, but for what this machine has.
    """
    home = state_dir(instance)
    for authority, file in (("edge-authority", "edge-ca.crt"), ("mesh-authority", "mesh-ca.crt")):
        (home / file).write_bytes(certificate_of(kube, authority))
    Door(home).open(options.owner)
    record.kubectl = str(provide(release, ["kubectl"], progress)["kubectl"])
    record.endpoints = entrances(kube, Door(home), record.capabilities)
    state.write(home, record)
    return KubernetesPlatform(instance)


def entrances(kube: Kube, door: Door, capabilities: Mapping[str, str | None]) -> dict[str, Endpoint]:
    """Where a platform that can show this answers on this machine."""
    proxy = _tier_1_service(kube)
    node = _node_address(kube)
    ways: dict[str, tuple[str, str, int, str]] = {
        "gateway": ("http", *_way(proxy, node, 80)),
        "gateway-tls": ("https", *_way(proxy, node, 443)),
        "tier2": ("https", "", 443, f"{SERVICE}istio-system/istio-ingressgateway"),
        "tier2-http": ("http", "", 80, f"{SERVICE}istio-system/istio-ingressgateway"),
        "jwt-server": ("http", "", 8080, f"{SERVICE}default/jwt-server"),
        "management": ("http", "", 80, f"{SERVICE}default/management-service"),
        "istiod": ("http", "", 15014, f"{SERVICE}istio-system/istiod"),
    }
    for capability, ports in MONITORING_PORTS.items():
        if capabilities.get(capability, "no") is None:
            ways |= {name: ("http", "", port, f"{SERVICE}{MONITORING}/{name}") for name, port in ports.items()}
    found = {
        name: Endpoint(scheme, "localhost", door.forward(address, port, pod, WISHED_PORTS.get(name, 0)))
        for name, (scheme, address, port, pod) in ways.items()
    }
    return {**found, "kubernetes": _kubernetes(kube)}


def _way(proxy: Mapping[str, Any], node: str, port: int) -> tuple[str, int, str]:
    """Straight to the node where this machine reaches it, else through the API server."""
    metadata, spec = proxy["metadata"], proxy["spec"]
    node_port = next((each.get("nodePort", 0) for each in spec["ports"] if each["port"] == port), 0)
    if node_port and _reaches(node, node_port):
        return node, node_port, DIRECT
    return "", port, f"{SERVICE}{metadata['namespace']}/{metadata['name']}"


def _reaches(address: str, port: int) -> bool:
    try:
        with socket.create_connection((address, port), CONNECT_SECONDS):
            return True
    except OSError:
        return False


def _tier_1_service(kube: Kube) -> dict[str, Any]:
    found = kube.list("services", SYSTEM, selector_of(TIER_1)).items
    if not found:
        raise SetupProblem("the tier-1 gateway has no Service", f"kubectl get services -n {SYSTEM}")
    return dict(found[0])


def _node_address(kube: Kube) -> str:
    addresses = [
        each["address"]
        for node in kube.list("nodes").items
        for each in node["status"].get("addresses", [])
        if each["type"] == "InternalIP"
    ]
    return str(addresses[0]) if addresses else ""


def _kubernetes(kube: Kube) -> Endpoint:
    scheme, _, rest = kube.url.partition("://")
    host, _, port = rest.rstrip("/").partition(":")
    return Endpoint(scheme, host, int(port or 443))


def _kitchen(
    instance: str,
    release: Release,
    options: PlatformOptions,
    watched: bool,
    target: Target,
    kube: Kube,
    helm: Path,
    progress: Progress,
) -> Kitchen:
    def image(name: str) -> str:
        if name not in target.images:
            raise SetupProblem(f"there is no image {name!r}", f"the release {release.name} must name it: `images:`")
        return target.images[name]

    hosts = {reference.partition("/")[0] for reference in target.images.values()}
    if "docker.io" in hosts:
        hosts.add("index.docker.io")  # as Knative calls it
    values = {
        "mesh_access_log": policies.mesh_access_log(),
        "mesh_statistics": policies.mesh_statistics(),
        "registries": ",".join(sorted(hosts)),
        "edge_names": json.dumps(policies.edge_names()),
        "telemetry_configuration": _digest(makers.telemetry()),
        "loki_configuration": _digest(makers.loki()),
        "log_collector_configuration": _digest(makers.log_collector()),
        "grafana_configuration": _digest(makers.grafana()),
        "kiali_configuration": _digest(makers.kiali()),
        "instance": instance,
    }
    return Kitchen(
        files=lambda layer: module_files(release, layer, progress),
        helm=helm,
        image=image,
        values=values,
        makers=makers.Makers(kube, options, watched, image).all(),
        kubernetes=kube.version(),
        small=Small.load() if target.small else None,
        instance=instance,
        kubeconfig=state_dir(instance) / "kubeconfig",
    )


def _digest(documents: list[Document]) -> str:
    """Of configuration that pods read when they start: another one, other pods."""
    return fingerprint([], json.dumps(documents, sort_keys=True))


def lost_by(failed: dag.StepsFailed, chosen: Mapping[str, Layer]) -> dict[str, str | None]:
    """Capabilities that a platform is without because their layers did not get ready, each with the reason.

    Raises:
        SetupProblem: something failed that a platform can't do without: all that did.
    """
    if any(name not in chosen or not chosen[name].gives for name in failed.errors):
        raise _told(failed) from None
    return {chosen[name].gives: f"layer {name}: {_what(error)}" for name, error in failed.errors.items()}


def _told(failed: dag.StepsFailed) -> SetupProblem:
    first = next(iter(failed.errors.values()))
    what = "; ".join(f"layer {name}: {_what(error)}" for name, error in failed.errors.items())
    if failed.skipped:
        what += f". Not begun for want of them: {', '.join(sorted(failed.skipped))}"
    return SetupProblem(what, getattr(first, "fix", "see the layer's manifests"))


def _what(error: Exception) -> str:
    return str(getattr(error, "what", error))
