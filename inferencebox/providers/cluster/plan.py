"""What would be done on a cluster: what it has, held against a release and what goes together."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import StrEnum

from inferencebox.errors import SetupProblem
from inferencebox.layers.choice import Choice
from inferencebox.providers.cluster.survey import Part, Sighting, Survey, detection
from inferencebox.release import OUR_IMAGES, Release
from inferencebox.support import Level, Range, known_ranges, line_of

SMALL_CORES = 8
"""A cluster with fewer cores gets the small requests (`layers/small.yaml`)."""


class State(StrEnum):
    """What a part is to the platform."""

    OURS = "ours"
    USED = "used as it is"
    MISSING = "missing"
    OLD = "too old"
    UNUSABLE = "in the way"


REFUSED = (State.OLD, State.UNUSABLE)


@dataclass(frozen=True)
class Line:
    """One part.

    Args:
        there: the version on the cluster.
        wanted: the release's.
        note: what a person should know.
    """

    part: str
    state: State
    there: str = ""
    wanted: str = ""
    note: str = ""


@dataclass(frozen=True)
class Plan:
    """What a platform takes on one cluster.

    Args:
        survey: what is there.
        instance: name of the platform.
        lines: each part, what it is.
        missing: folders of `manifests/layers` that are to be installed.
        choice: what the platform consists of, but for what is somebody else's and is used.
        pulled: images that the nodes have to pull.
        nowhere: images that no node has and no registry either.
    """

    survey: Survey
    instance: str
    lines: Sequence[Line]
    missing: Sequence[str]
    choice: Choice
    pulled: Sequence[str] = ()
    nowhere: Sequence[str] = ()

    @property
    def small(self) -> bool:
        return self.survey.nodes.cpu < SMALL_CORES

    def require_possible(self) -> None:
        """
        Raises:
            SetupProblem: a part is too old or in the way, or images are nowhere: which, and why.
        """
        refused = [line for line in self.lines if line.state in REFUSED]
        if refused:
            first, *others = (f"{line.part} {line.there} is {line.state}" for line in refused)
            what = ", ".join([f"{first} ({refused[0].note})", *others])
            raise SetupProblem(
                f"the platform cannot be installed on the cluster {self.survey.context}: {what}",
                "upgrade or remove it, or use another cluster",
            )
        if self.missing and not self.survey.nodes.count:
            raise SetupProblem(
                f"the cluster {self.survey.context} has no nodes: nothing can run there", "is this the right --context?"
            )
        if self.missing and self.nowhere:
            raise SetupProblem(
                f"no registry has {', '.join(self.nowhere)}, and the nodes of {self.survey.context} do not either",
                "make them (ibox build --provider kind) and load them into every node "
                "(kind load image-archive, or ctr --namespace k8s.io images import)",
            )

    def require_nothing_to_do(self) -> None:
        """
        Raises:
            SetupProblem: something would be installed, and nobody is there to agree.
        """
        if self.missing:
            raise SetupProblem(
                f"{len(self.missing)} layers are missing on the cluster {self.survey.context}, and nobody agreed to "
                "install them",
                "agree with --yes, or bring the platform up first: ibox up --provider cluster",
            )


def plan(
    survey: Survey,
    release: Release,
    choice: Choice,
    instance: str,
    images: Iterable[str],
    ranges: Sequence[Range] | None = None,
) -> Plan:
    """Hold a cluster against a release.

    Args:
        choice: what a platform consists of.
        instance: its name.
        images: references that it runs.
        ranges: which versions go together; none: ``data/support.yaml``.
    """
    ranges = known_ranges() if ranges is None else ranges
    parts = {part.layer: part for part in detection().parts}
    chosen = choice.layers.values()
    names = dict.fromkeys(["gateway-api", *(layer.release for layer in chosen if layer.release in parts)])
    lines = [_kubernetes(survey, release, ranges)]
    for name in names:
        seen = survey.sightings.get(name)
        if seen or name in release.layers:
            lines.append(_line(parts[name], seen, release, instance, ranges))
    others = [parts[line.part] for line in lines if line.state is State.USED and line.part in parts]
    ours = choice.without({made for part in others for made in part.makes})
    installed = survey.installed if survey.owner == instance else ()
    missing = [name for name in ours.layers if name not in installed]
    absent = sorted(set(images) - survey.nodes.images) if survey.nodes.images is not None else []
    return Plan(
        survey,
        instance,
        [*lines, *_platform(survey, instance)],
        missing,
        ours,
        pulled=[each for each in absent if not each.startswith(OUR_IMAGES)],
        nowhere=[each for each in absent if each.startswith(OUR_IMAGES)],
    )


def _kubernetes(survey: Survey, release: Release, ranges: Sequence[Range]) -> Line:
    there, wanted = survey.kubernetes, release.layers["kubernetes"].version
    state, note = _judged("kubernetes", there, release, ranges)
    return Line("kubernetes", state, there, wanted, note)


def _line(part: Part, seen: Sighting | None, release: Release, instance: str, ranges: Sequence[Range]) -> Line:
    wanted = release.layers[part.layer].version if part.layer in release.layers else ""
    if seen is None:
        return Line(part.layer, State.MISSING, "", wanted)
    if seen.owner == instance:
        return Line(part.layer, State.OURS, seen.version, wanted)
    if seen.owner:
        return Line(part.layer, State.UNUSABLE, seen.version, wanted, f"it belongs to the platform {seen.owner}")
    if part.unusable:
        return Line(part.layer, State.UNUSABLE, seen.version, wanted, f"{seen.where}: {part.unusable}")
    if part.namespace not in ("", seen.namespace):
        note = f"{seen.where}: the platform needs it in {part.namespace}"
        return Line(part.layer, State.UNUSABLE, seen.version, wanted, note)
    state, note = _judged(part.layer, seen.version, release, ranges)
    return Line(part.layer, state, seen.version, wanted, "; ".join(filter(None, [seen.where, note])))


def _platform(survey: Survey, instance: str) -> list[Line]:
    """Another platform of ours that is there."""
    if survey.owner in ("", instance):
        return []
    note = f"only one fits on a cluster: use it (--instance {survey.owner}), or ibox down --instance {survey.owner}"
    return [Line(f"platform {survey.owner}", State.UNUSABLE, note=note)]


def _judged(name: str, version: str, release: Release, ranges: Sequence[Range]) -> tuple[State, str]:
    """Whether the release's layers go with this version of something that is there."""
    if not version:
        return State.USED, "it does not say its version"
    lines = {layer: line_of(pin.version) for layer, pin in release.layers.items()}
    outside = [
        each
        for each in ranges
        if each.needs == name and lines.get(each.layer) == each.line and not each.allows(line_of(version))
    ]
    notes = [f"{each.layer} {each.line} is documented for {each}" for each in outside]
    refused = any(each.outside is Level.REFUSE for each in outside)
    return (State.OLD if refused else State.USED), "; ".join(notes)
