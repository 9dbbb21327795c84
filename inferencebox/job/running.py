"""Runs the suite as a Job and brings its results here while it goes on."""

import json
import os
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from inferencebox.errors import SetupProblem
from inferencebox.job.objects import JOB_LABEL, RESULTS, SUITE, account, binding_of, job
from inferencebox.journal import Journal
from inferencebox.layers.install import NAMESPACE
from inferencebox.layers.readiness import Pulse, last_events
from inferencebox.polling import poll
from inferencebox.probes.kubernetes import Kube

START_SECONDS = 180.0
HOPELESS = ("ImagePullBackOff", "InvalidImageName", "ErrImageNeverPull")
END_SECONDS = 60.0
DRAIN_SECONDS = 30.0
PAUSE = 0.5


@dataclass
class SuiteJob:
    """One run of the suite in a cluster.

    Args:
        kube: the cluster.
        kubeconfig: of it.
        instance: the platform that the run is about.
        image: of the suite, as the nodes know it.
        arguments: for pytest.
        show: is given each line that the suite prints.
        journal: takes the record.
        events: how many it has taken.
    """

    kube: Kube
    kubeconfig: Path
    instance: str
    image: str
    arguments: Sequence[str]
    show: Callable[[str], None]
    journal: Journal
    events: int = 0
    problem: SetupProblem | None = None
    name: str = field(default_factory=lambda: f"suite-{uuid.uuid4().hex[:8]}")

    def run(self) -> int:
        """Until it has ended; its exit code. Whatever happens, nothing of it stays.

        Raises:
            SetupProblem: it could not start, or was ended by somebody else.
        """
        watchdog = self._watch()
        try:
            for document in [*account(self.name, self.instance), self._job()]:
                reply = self.kube.create(document)
                if not reply.ok:
                    raise SetupProblem(f"the Job cannot be made: {document['kind']}: {reply}", "ask for the right to")
            pod = self._started()
            followers = [self._follow(pod, SUITE, self.show), self._follow(pod, RESULTS, self._record)]
            code = self._ended(pod)
            for follower in followers:
                follower.join(DRAIN_SECONDS)
            if self.problem:
                raise self.problem
            return code
        finally:
            remove(self.kube, self.name)
            watchdog.kill()
            watchdog.wait()

    def _job(self) -> dict[str, Any]:
        return dict(job(self.name, self.instance, self.image, self.arguments))

    def _watch(self) -> "subprocess.Popen[bytes]":
        """Another process, since a killed one cannot clear up behind itself."""
        words = [sys.executable, "-m", "inferencebox.job.watchdog", str(os.getpid()), str(self.kubeconfig), self.name]
        quiet = subprocess.DEVNULL
        return subprocess.Popen(words, stdin=quiet, stdout=quiet, stderr=quiet, start_new_session=True)

    def _started(self) -> str:
        """The pod's name, when the suite's container runs or has run."""
        began, pulse = time.monotonic(), Pulse(self.kube)
        pod: dict[str, Any] = {}
        while time.monotonic() - began < START_SECONDS:
            pulse.check()
            pod = next(iter(self.kube.list("pods", NAMESPACE, f"{JOB_LABEL}={self.name}").items), pod)
            waits = _state(pod, SUITE).get("waiting", {"reason": "Pending"} if _is_pending(pod) else {})
            if not waits:
                return str(pod["metadata"]["name"])
            if waits.get("reason") in HOPELESS:
                break
            time.sleep(PAUSE)  # not `poll`: a hopeless state and a cluster that is gone end this early
        said = last_events(self.kube, pod["metadata"]["name"] if pod else self.name, NAMESPACE)
        raise SetupProblem(
            f"the Job {self.name} did not start: {' | '.join(said) or 'there are no events of it'}",
            f"the nodes must have the image {self.image}, or pull it (ibox build --provider kind makes it)",
        )

    def _ended(self, pod: str) -> int:
        pulse = Pulse(self.kube)
        while True:
            pulse.check()
            reply = self.kube.get("pod", pod, NAMESPACE)
            if reply.status == 404:
                raise SetupProblem(f"the pod {pod} was removed while the suite ran", "see who did, and run this again")
            if reply.ok:
                if (over := _state(reply.object, SUITE).get("terminated")) is not None:
                    return int(over["exitCode"])
                if reply.object["status"].get("phase") == "Failed":
                    why = reply.object["status"].get("message") or reply.object["status"].get("reason")
                    raise SetupProblem(f"the suite was ended by the cluster: {why}", "run this again")
            time.sleep(PAUSE)  # not `poll`: whether the cluster is there is asked, too, and there is no limit

    def _follow(self, pod: str, container: str, take: Callable[[str], None]) -> threading.Thread:
        def follow() -> None:
            try:
                for line in lines(self.kube, pod, container):
                    take(line)
            except SetupProblem as problem:
                self.problem = problem

        thread = threading.Thread(target=follow, name=f"log-{container}", daemon=True)
        thread.start()
        return thread

    def _record(self, line: str) -> None:
        number, _, event = line.partition(" ")
        if not number.isdigit():
            return  # what Python says when it is ended
        if int(number) != self.events + 1:
            raise SetupProblem(f"the record lacks events {self.events + 1} to {int(number) - 1}", "run this again")
        self.events += 1
        self.journal.write(json.loads(event))


def lines(kube: Kube, pod: str, container: str) -> Iterator[str]:
    """What a container prints, each line once, also when the connection breaks meanwhile."""
    taken, ended = 0, False
    while True:
        for counted, line in enumerate(kube.log(NAMESPACE, pod, container), 1):
            number = line.partition(" ")[0]
            place = int(number) if number.isdigit() else counted  # of a log that was rotated only the end can be had
            if place > taken:
                taken = place
                yield line
        if ended:
            return
        reply = kube.get("pod", pod, NAMESPACE)
        ended = reply.status == 404 or (reply.ok and "terminated" in _state(reply.object, container))
        time.sleep(PAUSE)  # a log that ends at once must not become a busy loop


def remove(kube: Kube, name: str) -> None:
    """Remove a Job, its pod and whom it ran as; returns when all are gone. No error if they are.

    The suite is given the time that it needs to clear up behind its tests, and its rights until then.
    """
    kube.delete("job", name, NAMESPACE)
    poll(lambda: not kube.list("pods", NAMESPACE, f"{JOB_LABEL}={name}").items, END_SECONDS, every=PAUSE)
    kube.delete("clusterrolebinding", binding_of(name))
    kube.delete("serviceaccount", name, NAMESPACE)


def _is_pending(pod: dict[str, Any]) -> bool:
    return bool(pod.get("status", {}).get("phase", "Pending") == "Pending")


def _state(pod: dict[str, Any], container: str) -> dict[str, Any]:
    found = [each for each in pod.get("status", {}).get("containerStatuses") or [] if each["name"] == container]
    return dict(found[0]["state"]) if found else {}
