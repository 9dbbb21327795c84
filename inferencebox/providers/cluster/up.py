"""Brings a platform up on somebody's cluster, takes hold of one that is there, and removes it again."""

import contextlib
import tempfile
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path

from inferencebox.errors import SetupProblem
from inferencebox.layers import dag
from inferencebox.layers.catalogue import layers
from inferencebox.layers.install import NAMESPACE
from inferencebox.paths import state_dir
from inferencebox.polling import poll
from inferencebox.probes.kubernetes import Kube
from inferencebox.programs import Progress
from inferencebox.providers import CLUSTER_MARK
from inferencebox.providers.cluster import kubeconfig
from inferencebox.providers.cluster.access import TO_INSTALL, TO_LOOK, Access
from inferencebox.providers.cluster.lease import Lease, whoami
from inferencebox.providers.cluster.plan import Plan, plan
from inferencebox.providers.cluster.pulling import obstacle
from inferencebox.providers.cluster.removal import Removal, Tell
from inferencebox.providers.cluster.survey import survey
from inferencebox.providers.exclusive import alone
from inferencebox.providers.kubernetes import about, state
from inferencebox.providers.kubernetes.capabilities import SHARED
from inferencebox.providers.kubernetes.door import Door
from inferencebox.providers.kubernetes.images import needed, references
from inferencebox.providers.kubernetes.platform import KubernetesPlatform
from inferencebox.providers.kubernetes.up import Target, bring_up_on, chosen_layers, take_hold
from inferencebox.providers.leftovers import clear
from inferencebox.providers.options import ClusterOptions, PlatformOptions
from inferencebox.release import Release

PROVIDER = "cluster"
CONFIG = "kubeconfig"
ENDING_SECONDS = 180.0


def bring_up(
    instance: str, release: Release, options: PlatformOptions, progress: Progress, listener: dag.Listener
) -> KubernetesPlatform:
    """A platform that is up when this returns. Only what is missing is installed, and only if that is agreed to.

    Raises:
        SetupProblem: the cluster cannot be used, or somebody works on it: who, or what is in the way.
    """
    home = state_dir(instance)
    home.mkdir(parents=True, exist_ok=True)
    try:
        with alone(home):
            access = _access(home, options.cluster)
            found = examine(access, instance, release, options)
            if found.missing:
                access.require(TO_INSTALL)
            options.cluster.approve(found)
            found.require_possible()
            with Lease(access.kube, instance, whoami("ibox up")).held() as lease:
                _remember(home, options.cluster)
                return _install(access.kube, instance, release, options, found, lease, progress, listener)
    finally:
        with contextlib.suppress(OSError):  # nothing was begun
            home.rmdir()


def examine(access: Access, instance: str, release: Release, options: PlatformOptions) -> Plan:
    """What a platform of this release takes on a cluster. Nothing is changed.

    Raises:
        SetupProblem: it does not answer, or does not let us look.
    """
    version = access.version()
    access.require(TO_LOOK)
    found = survey(access.kube, access.context, version)
    choice = chosen_layers(access.kube, options, partial(obstacle, found.nodes, release))
    return plan(found, release, choice, instance, needed(release, choice.layers).values())


def running(instance: str, options: PlatformOptions, progress: Progress) -> KubernetesPlatform | None:
    """Take hold of the platform that is complete on the cluster, whoever brought it up; none if there is none.

    Raises:
        SetupProblem: the cluster does not answer, or its platform has another name.
    """
    home = state_dir(instance)
    if state.path(home).exists():
        return KubernetesPlatform(instance)
    access = _access(home, options.cluster)
    access.version()
    found = about.read(access.kube)
    if found is None or found.record is None:
        return None
    _require_called(instance, found, access)
    home.mkdir(parents=True, exist_ok=True)
    _remember(home, options.cluster)
    record = replace(found.record, capabilities={**found.record.capabilities, **SHARED})
    return take_hold(instance, access.kube, record, Release.load(record.release), options, progress)


def adopt(instance: str, options: ClusterOptions) -> None:
    """Have this machine know of a platform on a cluster, whole or not, so that it can be removed from here.

    Raises:
        SetupProblem: the cluster does not answer, or has no platform of this name.
    """
    home = state_dir(instance)
    access = _access(home, options)
    access.version()
    found = about.read(access.kube)
    if found is None:
        raise SetupProblem(
            f"there is no platform of ours on the cluster {access.context}", "is this the right --context?"
        )
    _require_called(instance, found, access)
    home.mkdir(parents=True, exist_ok=True)
    _remember(home, options)


@contextlib.contextmanager
def held(platform: KubernetesPlatform, purpose: str) -> Iterator[Lease]:
    """Nobody else works with this platform meanwhile.

    Raises:
        SetupProblem: somebody does: who.
    """
    with Lease(platform.kube, platform.instance, whoami(purpose)).held() as lease:
        yield lease


def take_down(instance: str, keep_logs: bool, tell: Tell) -> list[str]:
    """Remove from the cluster what this platform made there, and nothing else. Can be begun again at any point.

    Returns:
        what was left for others' sake.

    Raises:
        SetupProblem: the cluster does not answer, or something does not go away.
    """
    home = state_dir(instance)
    kept = []
    if (home / CONFIG).exists():
        access = Access(Kube(home / CONFIG), kubeconfig.context_of(home / CONFIG))
        try:
            access.version()
        except SetupProblem as problem:
            fix = f"{problem.fix}; if it is gone for good: ibox down --instance {instance} --forget"
            raise SetupProblem(problem.what, fix) from None
        kept = _remove(access.kube, instance, tell)
    forget(instance, keep_logs)
    return kept


def forget(instance: str, keep_logs: bool = False) -> None:
    """Clear what this machine keeps of a platform; what is in the cluster stays there."""
    home = state_dir(instance)
    Door(home).close()
    clear(home, keep_logs)


def _install(
    kube: Kube,
    instance: str,
    release: Release,
    options: PlatformOptions,
    found: Plan,
    lease: Lease,
    progress: Progress,
    listener: dag.Listener,
) -> KubernetesPlatform:
    def watched(layer: str, what: str, seconds: float) -> None:
        if what == "begins":
            lease.require()
        listener(layer, what, seconds)

    about.write(kube, about.About(instance, list(found.choice.layers)))
    target = Target(PROVIDER, references(release), found.small, found.choice, is_shared=True)
    return bring_up_on(instance, release, options, target, progress, watched, {}, dag.Timeline())


def _remove(kube: Kube, instance: str, tell: Tell) -> list[str]:
    if not poll(lambda: not _is_ending(kube), ENDING_SECONDS, every=0.5):
        raise SetupProblem(f"the namespace {NAMESPACE} does not go away", f"kubectl get namespace {NAMESPACE} -o yaml")
    found = about.read(kube)
    names = found.layers if found else []
    with Lease(kube, instance, whoami("ibox down")).held():
        return Removal(kube, instance, [layer for layer in layers().values() if layer.name in names], tell).run()


def _is_ending(kube: Kube) -> bool:
    found = kube.get("namespace", NAMESPACE)
    return found.ok and "deletionTimestamp" in found.object["metadata"]


def _require_called(instance: str, found: about.About, access: Access) -> None:
    if found.instance != instance:
        raise SetupProblem(
            f"the platform on the cluster {access.context} is called {found.instance}, not {instance}",
            f"--instance {found.instance}",
        )


def _access(home: Path, options: ClusterOptions) -> Access:
    """The cluster that was asked for; without a word, the one that the platform is on.

    Raises:
        SetupProblem: the platform of this name is on another one.
    """
    known = home / CONFIG
    asked = options.kubeconfig or options.context or not known.exists()
    wanted = kubeconfig.chosen(options.kubeconfig, options.context) if asked else kubeconfig.read(known)
    with tempfile.TemporaryDirectory() as scratch:
        file = Path(scratch) / CONFIG
        kubeconfig.write(file, wanted)
        kube = Kube(file)
    if known.exists() and kubeconfig.server_of(kubeconfig.read(known)) != kube.url:
        raise SetupProblem(
            f"the platform {home.name} is on the cluster {kubeconfig.context_of(known)}, not on the one asked for",
            "choose another --instance, or take that one down first",
        )
    return Access(kube, wanted["current-context"])


def _remember(home: Path, options: ClusterOptions) -> None:
    """From now on this machine knows of a platform there."""
    known = home / CONFIG
    if options.kubeconfig or options.context or not known.exists():
        kubeconfig.write(known, kubeconfig.chosen(options.kubeconfig, options.context))
    (home / CLUSTER_MARK).touch()
