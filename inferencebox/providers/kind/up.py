"""Brings the whole platform up on a Kind cluster of its own, and takes it down."""

import contextlib
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property, partial
from pathlib import Path

from inferencebox import images
from inferencebox.errors import SetupProblem
from inferencebox.layers import dag
from inferencebox.layers.choice import Choice, sparable
from inferencebox.paths import state_dir
from inferencebox.probes.kubernetes import Kube
from inferencebox.programs import Progress
from inferencebox.providers import KIND_MARK, pins
from inferencebox.providers.exclusive import alone
from inferencebox.providers.kind import cluster, engine
from inferencebox.providers.kubernetes import state
from inferencebox.providers.kubernetes.door import Door, tell_node_logs
from inferencebox.providers.kubernetes.images import OF_THE_CLUSTER, needed, references
from inferencebox.providers.kubernetes.platform import KubernetesPlatform
from inferencebox.providers.kubernetes.up import Target, bring_up_on, chosen_layers
from inferencebox.providers.leftovers import clear
from inferencebox.providers.options import PlatformOptions
from inferencebox.release import DEFAULT_RELEASE, Release


@dataclass
class Ascent:
    """One bring-up of the cluster, up to where layers can be installed."""

    instance: str
    release: Release
    options: PlatformOptions
    progress: Progress
    archives: dict[str, Path] = field(default_factory=dict)
    made: cluster.Cluster | None = None

    @cached_property
    def choice(self) -> Choice:
        """What is installed, known when the cluster is there."""
        return chosen_layers(
            Kube(state_dir(self.instance) / "kubeconfig"), self.options, partial(images.obstacle, self.release)
        )

    def steps(self) -> Mapping[str, dag.Step]:
        """What gets the images onto the nodes; `load` is the last of it."""
        return {"images": dag.Step(self.make_images), "load": dag.Step(self.load_images, ["images"])}

    def make_cluster(self) -> None:
        there = engine.up(self.release, self.progress)
        asked = self.options.kind
        handle = cluster.handle(self.instance, there, self.release, self.progress, asked)
        image = asked.image or cluster.ensure_node_image(there, self.release, self.progress)
        handle.create(image, self.options.nodes)
        home = state_dir(self.instance)
        (home / "kubeconfig").touch(mode=0o600)
        shutil.copyfile(handle.kubeconfig, home / "kubeconfig")
        tell_node_logs(home, handle.pod_logs())
        self.made = handle

    def make_images(self) -> None:
        wanted = needed(self.release, self.choice.layers)
        spared = sparable(self.choice.layers)
        firm = [name for name in wanted if name not in spared]
        self.archives.update(images.provide(self.release, firm, self.progress))
        for name in (name for name in wanted if name in spared):
            try:
                self.archives.update(images.provide(self.release, [name], self.progress))
            except SetupProblem as problem:  # the nodes have it, or its layer will say that it did not get ready
                self.progress.end(name, problem.what)

    def load_images(self) -> None:
        assert self.made
        self.made.load(self.archives)


def bring_up(
    instance: str, release: Release, options: PlatformOptions, progress: Progress, listener: dag.Listener
) -> KubernetesPlatform:
    """A platform that is up when this returns. What is there already, and as it should be, is left as it is."""
    home = state_dir(instance)
    home.mkdir(parents=True, exist_ok=True)
    with alone(home):
        require_same_nodes(home, release)
        (home / KIND_MARK).touch()
        ascent = Ascent(instance, release, options, progress)
        before = dag.run({"cluster": dag.Step(ascent.make_cluster)}, listener)
        target = Target("kind", references(release), small=True, choice=ascent.choice)
        return bring_up_on(instance, release, options, target, progress, listener, ascent.steps(), before)


def require_same_nodes(home: Path, release: Release) -> None:
    """Nodes are made once: what they come with stays as it is as long as there is a platform on them."""
    try:
        before = pins.read(home, state.read(home).release)
    except SetupProblem:
        return  # there is no platform yet, or only half of one
    if changed := pins.changed_images(before, release, OF_THE_CLUSTER):
        raise SetupProblem(
            f"the nodes of the platform {home.name} keep their {', '.join(changed)}: the release {release.name} has "
            "another",
            f"ibox down --instance {home.name}, then ibox up with that release",
        )


def load(instance: str, release: Release, names: Sequence[str], progress: Progress) -> None:
    """Bring more images to the nodes of a cluster that is up; what they have already is left."""
    archives = images.provide(release, names, progress)
    cluster.handle(instance, engine.find(), release, progress).load(archives)


def take_down(instance: str, keep_logs: bool = False) -> None:
    """Delete the cluster and everything of this instance. Safe to call at any time, also after a crash."""
    home = state_dir(instance)
    Door(home).close()
    with contextlib.suppress(SetupProblem):  # without an engine there is no cluster either
        cluster.handle(instance, engine.find(), Release.load(_release_of(home))).delete()
    clear(home, keep_logs)


def _release_of(home: Path) -> str:
    try:
        return state.read(home).release
    except SetupProblem:
        return DEFAULT_RELEASE
