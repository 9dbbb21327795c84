"""Which images of a release a platform runs on a cluster that is there."""

from collections.abc import Mapping

from inferencebox.images import obstacle
from inferencebox.layers.catalogue import Layer, layers
from inferencebox.layers.choice import sparable
from inferencebox.providers.options import LOG_PROGRAMS
from inferencebox.release import Release

OF_THE_CLUSTER = (
    "node", "pause", "kube-apiserver", "kube-controller-manager", "kube-scheduler", "kube-proxy", "etcd", "coredns",
    "kube-router", "local-path-provisioner", "local-path-helper",
)  # fmt: skip
"""Images that a cluster has from the start."""
SUITE = "suite"
"""The suite itself, for `ibox job`; no part of a platform."""


def obtainable(release: Release) -> tuple[list[str], dict[str, str]]:
    """Names of all images of a release that this machine can have; and why not those that a platform can do without."""
    spared = sparable(layers()) & release.images.keys()
    left_out = {name: why for name in sorted(spared) if (why := obstacle(release, name))}
    return [name for name in release.images if name not in left_out], left_out


def references(release: Release) -> Mapping[str, str]:
    """Name of each image of a platform -> what its nodes call it."""
    left_out = (*OF_THE_CLUSTER, SUITE)
    return {name: pin.reference for name, pin in release.images.items() if name not in left_out}


def needed(release: Release, chosen: Mapping[str, Layer]) -> Mapping[str, str]:
    """Those that a platform of these layers takes: what keeps logs takes minutes to build, and what only registries
    have may not be to be had. Where no layer needs them they are left out."""
    used = {image for layer in chosen.values() for image in layer.images.values()}
    unused = {*LOG_PROGRAMS, *sparable(layers())} - used
    return {name: reference for name, reference in references(release).items() if name not in unused}
