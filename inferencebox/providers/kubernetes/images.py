"""Which images of a release a platform runs on a cluster that is there."""

from collections.abc import Mapping

from inferencebox.layers.catalogue import Layer
from inferencebox.providers.options import LOG_PROGRAMS
from inferencebox.release import Release

OF_THE_CLUSTER = (
    "node", "pause", "kube-apiserver", "kube-controller-manager", "kube-scheduler", "kube-proxy", "etcd", "coredns",
    "kube-router", "local-path-provisioner", "local-path-helper",
)  # fmt: skip
"""Images that a cluster has from the start."""
SUITE = "suite"
"""The suite itself, for `ibox job`; no part of a platform."""


def references(release: Release) -> Mapping[str, str]:
    """Name of each image of a platform -> what its nodes call it."""
    left_out = (*OF_THE_CLUSTER, SUITE)
    return {name: pin.reference for name, pin in release.images.items() if name not in left_out}


def needed(release: Release, chosen: Mapping[str, Layer]) -> Mapping[str, str]:
    """Those that a platform of these layers takes: what keeps logs takes minutes to build, and is left out without."""
    used = {image for layer in chosen.values() for image in layer.images.values()}
    unused = set(LOG_PROGRAMS) - used
    return {name: reference for name, reference in references(release).items() if name not in unused}
