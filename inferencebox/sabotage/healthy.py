"""The record of a healthy run: it stands for the runs of its scenarios with which a run of sabotages would begin."""

import datetime as dt
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from inferencebox.errors import SetupProblem
from inferencebox.journal import read
from inferencebox.platform import Platform
from inferencebox.probes.kubernetes import Kube
from inferencebox.verdicts import JUDGED_WELL
from inferencebox.waiting import SCALE_VARIABLE, timeout_scale

from .suite import Claim, Event, Verdict, judged

HOURS = 12.0
"""A record that is older says too little of the platform as it is now."""
OTHERWISE = "name the run.jsonl of a run on this platform, or leave --healthy out: then all are run first"


@dataclass(frozen=True)
class HealthyRun:
    """A recorded run on the platform that is to be broken.

    Args:
        file: its record.
        events: what the record says.
    """

    file: Path
    events: Sequence[Event]

    @classmethod
    def of(cls, file: Path, platform: Platform) -> "HealthyRun":
        """The record, if it is of this platform and says something of it as it is now.

        Raises:
            SetupProblem: it is of another platform, or of one of the same name that is gone; or it is older than
                `HOURS`, or its scenarios were given more time than they would be now.
        """
        run = cls(file, read(file))
        run._is_of(platform)
        run._is_new(_born(platform))
        run._was_no_more_patient(timeout_scale())
        return run

    @property
    def hours(self) -> float:
        """Since its first verdict."""
        return (time.time() - self._began) / 3600

    def green(self, claims: Iterable[Claim]) -> dict[str, Verdict]:
        """Of these scenarios those that passed in it, with all the tests that they have."""
        asked = {str(event.get("item")) for event in self.events if event["event"] == "verdict"}
        found = judged(self.events)
        return {
            claim.id: found[claim.id]
            for claim in claims
            if claim.id in found and found[claim.id].verdict in JUDGED_WELL and asked.issuperset(claim.tests)
        }

    @property
    def _facts(self) -> Event:
        return self.events[0] if self.events and self.events[0]["event"] == "run-started" else {}

    @property
    def _began(self) -> float:
        moments = [float(str(event["at"])) for event in self.events if event["event"] == "verdict"]
        if not moments:
            raise SetupProblem(f"{self.file} has no verdict on any scenario", OTHERWISE)
        return min(moments)

    def _is_of(self, platform: Platform) -> None:
        """What a run asked for and what it found may differ: what it found counts."""
        seen: Mapping[str, object] = next(
            (event for event in self.events if event["event"] == "layer" and "provider" in event), {}
        )
        its = (self._facts.get("instance"), seen.get("provider"), seen.get("release"))
        ours = (platform.instance, platform.provider, platform.release)
        if its != ours:
            raise SetupProblem(f"{self.file} is not of this platform ({_shown(its)}; it is {_shown(ours)})", OTHERWISE)

    def _is_new(self, born: float) -> None:
        if self._began < born:
            raise SetupProblem(f"{self.file} is older than the platform: it is of an earlier one", OTHERWISE)
        if self.hours > HOURS:
            raise SetupProblem(f"{self.file} is {self.hours:.0f} hours old, {HOURS:.0f} at most will do", OTHERWISE)

    def _was_no_more_patient(self, scale: float) -> None:
        given = float(str(self._facts.get("timeout_scale", 1.0)))
        if given > scale:
            raise SetupProblem(
                f"the scenarios of {self.file} were given {given:g} times the usual time, now they would get {scale:g}",
                f"run with {SCALE_VARIABLE}={given:g}",
            )


def _born(platform: Platform) -> float:
    """When the platform was made: its tenants' namespaces are as old as it is, whoever provides it."""
    tenants = Kube(platform.kubeconfig).list("namespaces", labels="tenant").require()["items"]
    return min(dt.datetime.fromisoformat(each["metadata"]["creationTimestamp"]).timestamp() for each in tenants)


def _shown(names: Sequence[object]) -> str:
    instance, provider, release = names
    return f"instance {instance}, provider {provider}, release {release}"
