"""One run at a time on a shared cluster: a Lease in it that the holder renews for as long as it works.

The rules of Kubernetes' own leader election (`k8s.io/client-go/tools/leaderelection`): a Lease that nobody has renewed
for its duration is free; writes carry the version that was read, so of two who want it one gets it.
"""

import contextlib
import getpass
import os
import socket
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

from inferencebox.errors import SetupProblem
from inferencebox.layers.install import NAMESPACE, namespace
from inferencebox.layers.labels import INSTANCE
from inferencebox.probes.kubernetes import Kube, KubeReply

NAME = "platform"
SECONDS = 30
RENEWALS = 3
"""Renewed so many times in its duration: one that is lost on the way does no harm."""
FORMAT = "%Y-%m-%dT%H:%M:%S.%fZ"


def whoami(purpose: str) -> str:
    """A holder's name: what people need to find it."""
    return f"{getpass.getuser()}@{socket.gethostname()} (process {os.getpid()}, {purpose})"


@dataclass
class Lease:
    """The right to work on a cluster's platform.

    Args:
        kube: the cluster.
        instance: name of the platform.
        holder: who we are, as others are told.
        seconds: after so many without renewal it is free for others.
        problem: why it has been lost, if it has.
    """

    kube: Kube
    instance: str
    holder: str
    seconds: float = SECONDS
    _stop: threading.Event = field(default_factory=threading.Event)
    problem: SetupProblem | None = None
    _thread: threading.Thread | None = None

    @contextlib.contextmanager
    def held(self) -> Iterator["Lease"]:
        """Hold it meanwhile.

        Raises:
            SetupProblem: somebody else does: who, and since when.
        """
        self.take()
        self._thread = threading.Thread(target=self._renew_until_stopped, name="lease", daemon=True)
        self._thread.start()
        try:
            yield self
        finally:
            self.release()

    def release(self) -> None:
        """Let others have it. Safe to call again."""
        self._stop.set()
        if self._thread:
            self._thread.join()
            self._thread = None
            found = self._read()
            if found.ok and _holder(found.object) == self.holder:
                self.kube.replace(self._changed(found.object, {"holderIdentity": ""}))

    def require(self) -> None:
        """
        Raises:
            SetupProblem: it has been lost.
        """
        if self.problem:
            raise self.problem

    def take(self) -> None:
        """Have it from now on, for its duration.

        Raises:
            SetupProblem: somebody else has it: who, and since when.
        """
        found = self._read()
        if found.status == 404:
            self._create()
            return
        if not found.ok:
            raise SetupProblem(f"the Lease {NAMESPACE}/{NAME} cannot be read: {found}", "ask for the right to use it")
        holder = _holder(found.object)
        if holder not in ("", self.holder) and not self._is_abandoned(found):
            since = found.object["spec"].get("acquireTime", "")[:19].replace("T", " ")
            raise SetupProblem(
                f"somebody else works with the platform on this cluster: {holder}, since {since} UTC",
                f"wait until they are done (kubectl get lease {NAME} -n {NAMESPACE})",
            )
        changes = int(found.object["spec"].get("leaseTransitions") or 0) + 1
        taken = self._changed(found.object, {**self._claim(), "leaseTransitions": changes})
        self._require_taken(self.kube.replace(taken))

    def _is_abandoned(self, found: KubeReply) -> bool:
        """Expired by the clock; and since clocks differ, not renewed while we look either."""
        spec = found.object["spec"]
        duration = float(spec.get("leaseDurationSeconds") or self.seconds)
        renewed = datetime.strptime(spec["renewTime"], FORMAT).replace(tzinfo=UTC)
        if datetime.now(UTC) - renewed < timedelta(seconds=duration):
            return False
        time.sleep(min(duration, self.seconds) / RENEWALS + 1)  # in which a living holder would have renewed it
        again = self._read()
        return again.ok and again.object["metadata"]["resourceVersion"] == found.object["metadata"]["resourceVersion"]

    def _create(self) -> None:
        if not self.kube.get("namespace", NAMESPACE).ok:
            self.kube.create(namespace(NAMESPACE, {INSTANCE: self.instance}))
        metadata = {"name": NAME, "namespace": NAMESPACE, "labels": {INSTANCE: self.instance}}
        spec = {**self._claim(), "leaseTransitions": 0}
        document = {"apiVersion": "coordination.k8s.io/v1", "kind": "Lease", "metadata": metadata, "spec": spec}
        self._require_taken(self.kube.create(document))

    def _require_taken(self, reply: KubeReply) -> None:
        if reply.cause in ("conflict", "exists"):
            raise SetupProblem("somebody else took the platform's Lease in this moment", "try again")
        if not reply.ok:
            raise SetupProblem(f"the Lease {NAMESPACE}/{NAME} cannot be taken: {reply}", "ask for the right to use it")

    def _claim(self) -> dict[str, Any]:
        now = datetime.now(UTC).strftime(FORMAT)
        seconds = max(1, round(self.seconds))
        return {
            "holderIdentity": self.holder, "leaseDurationSeconds": seconds, "acquireTime": now, "renewTime": now,
        }  # fmt: skip

    def _renew_until_stopped(self) -> None:
        renewed = time.monotonic()
        while not self._stop.wait(self.seconds / RENEWALS):
            found = self._read()
            if found.ok and _holder(found.object) != self.holder:
                self._lose(f"it was taken by {_holder(found.object) or 'nobody'}")
                return
            now = {"renewTime": datetime.now(UTC).strftime(FORMAT)}
            if found.ok and self.kube.replace(self._changed(found.object, now)).ok:
                renewed = time.monotonic()
            elif time.monotonic() - renewed > self.seconds:
                self._lose(f"it could not be renewed for {self.seconds:.0f} s ({found})")
                return

    def _lose(self, why: str) -> None:
        what = f"the Lease on this cluster's platform was lost: {why}"
        self.problem = SetupProblem(what, "see who works there, and whether the cluster answers; then run this again")

    def _read(self) -> KubeReply:
        return self.kube.get("leases.coordination.k8s.io", NAME, NAMESPACE)

    def _changed(self, found: dict[str, Any], spec: dict[str, Any]) -> dict[str, Any]:
        return {**found, "spec": {**found["spec"], **spec}}


def _holder(found: dict[str, Any]) -> str:
    return str(found["spec"].get("holderIdentity") or "")
