"""One sabotage on a running platform: from the healthy platform to the broken one and back."""

import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass

from inferencebox.errors import SetupProblem
from inferencebox.platform import Platform
from inferencebox.probes.kubernetes import Kube, KubeRefused

from .catalogue import Sabotage
from .effects import NoEffect
from .mechanisms import Scene
from .remembered import Memory, memory_file
from .settling import VIEWS, Settling

AT_ONCE_SECONDS = 1.0
"""What the API server decides itself follows a change within its caches' delay."""
EVERYWHERE = tuple(VIEWS)


@dataclass
class Healing:
    """How it went to put things back."""

    seconds: float = 0.0
    problem: str = ""


@contextmanager
def broken(platform: Platform, sabotage: Sabotage) -> Iterator[Healing]:
    """The platform is broken inside the block and healed after it; what is yielded says afterwards how that went.

    Raises:
        NoEffect: the break did not arrive (then the platform was healed again).
    """
    kube, memory = Kube(platform.kubeconfig), Memory.read(memory_file(platform.instance))
    healing = Healing()
    ends = ExitStack()
    try:
        settling = Settling(platform, sabotage.settle)
        _apply(sabotage, Scene(platform, kube, memory, ends))
        _arrived(settling, sabotage)
        yield healing
    finally:
        began = time.monotonic()
        settling = Settling(platform, sabotage.settle)
        healing.problem = _undo(ends, memory, kube)
        if not settling.wait() and not healing.problem:
            healing.problem = "the proxies were not told that it is over"
        time.sleep(AT_ONCE_SECONDS)
        healing.seconds = time.monotonic() - began


def heal_leftovers(platform: Platform) -> int:
    """Put back what a run that was killed had left broken. How many objects and components."""
    memory = Memory.read(memory_file(platform.instance))
    stopped = [part.name for part in platform.components() if part.state == "stopped"]
    for name in stopped:
        platform.start(name)
    count = len(memory.deeds) + len(stopped)
    if count:
        settling = Settling(platform, EVERYWHERE)
        memory.undo(Kube(platform.kubeconfig))
        settling.wait()
    return count


def _apply(sabotage: Sabotage, scene: Scene) -> None:
    try:
        for mechanism in sabotage.how:
            mechanism.apply(scene)
    except SetupProblem as problem:
        raise NoEffect(problem.what) from problem
    except KubeRefused as refused:
        raise NoEffect(str(refused)) from refused


def _arrived(settling: Settling, sabotage: Sabotage) -> None:
    if not settling.wait():
        raise NoEffect(f"{sabotage.name} did not reach {' and '.join(sabotage.settle)}")
    if not sabotage.settle:
        time.sleep(AT_ONCE_SECONDS)


def _undo(ends: ExitStack, memory: Memory, kube: Kube) -> str:
    """Everything, even if a part of it fails; what failed first."""
    problem = ""
    for act in (ends.close, lambda: memory.undo(kube)):
        try:
            act()
        except Exception as error:
            problem = problem or f"{type(error).__name__}: {error}"
    return problem
