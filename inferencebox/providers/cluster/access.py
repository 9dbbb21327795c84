"""Whether a cluster answers, who we are there, and whether we may do what a platform takes."""

from collections.abc import Iterable
from dataclasses import dataclass

from inferencebox.errors import SetupProblem
from inferencebox.probes.http import Transport
from inferencebox.probes.kubernetes import Kube, KubeReply

WORDS = {
    Transport.REFUSED: "nobody listens there",
    Transport.DNS: "its name is not known",
    Transport.TLS: "its certificate is not the one that the kubeconfig trusts",
    Transport.TIMEOUT: "no answer in time",
    Transport.RESET: "the connection was cut",
}
TO_LOOK = [
    ("list", "namespaces"),
    ("list", "nodes"),
    ("list", "pods"),
    ("list", "deployments.apps"),
    ("list", "daemonsets.apps"),
    ("list", "customresourcedefinitions.apiextensions.k8s.io"),
]
TO_INSTALL = [
    *((verb, kind) for verb in ("create", "patch", "delete") for kind in (
        "namespaces", "secrets", "configmaps", "services", "serviceaccounts", "pods", "deployments.apps",
        "customresourcedefinitions.apiextensions.k8s.io", "clusterroles.rbac.authorization.k8s.io",
        "clusterrolebindings.rbac.authorization.k8s.io",
        "mutatingwebhookconfigurations.admissionregistration.k8s.io",
        "validatingwebhookconfigurations.admissionregistration.k8s.io",
    )),
    ("create", "pods/exec"),
    ("create", "pods/portforward"),
    ("update", "leases.coordination.k8s.io"),
]  # fmt: skip
"""Not all of it: whoever may do this has been made an administrator. The API server says what else is missing."""


@dataclass(frozen=True)
class Access:
    """One cluster, as one user of it.

    Args:
        kube: its API.
        context: what its kubeconfig calls it.
    """

    kube: Kube
    context: str

    def version(self) -> str:
        """The version of Kubernetes that it runs.

        Raises:
            SetupProblem: it does not answer, is no Kubernetes, or does not know us.
        """
        reply = self.kube.raw("/version")
        if reply.error:
            raise self.unreachable(reply)
        if not reply.ok or not isinstance(reply.object, dict) or "gitVersion" not in reply.object:
            raise SetupProblem(
                f"what answers at {self.kube.url} is no Kubernetes API ({reply})", "is this the right --context?"
            )
        self._require_known()
        return str(reply.object["gitVersion"])

    def require(self, wishes: Iterable[tuple[str, str]]) -> None:
        """Ask the API server's authorizer.

        Args:
            wishes: verb and resource, in all namespaces.

        Raises:
            SetupProblem: something of it is forbidden; it names the first.
        """
        if self.kube.can_i("*", "*.*"):
            return
        refused = [f"{verb} {resource}" for verb, resource in wishes if not self.kube.can_i(verb, resource)]
        if refused:
            more = f" and {len(refused) - 1} more" if len(refused) > 1 else ""
            raise SetupProblem(
                f"{self.whom()} may not {refused[0]} in the cluster {self.context}{more}",
                f"ask its administrator for the role cluster-admin, or at least: {', '.join(refused)}",
            )

    def whom(self) -> str:
        """Who the API server takes us for."""
        document = {"apiVersion": "authentication.k8s.io/v1", "kind": "SelfSubjectReview"}
        reply = self.kube.create(document)
        told = reply.object.get("status", {}).get("userInfo", {}) if reply.ok else {}
        return str(told.get("username") or "this kubeconfig's user")

    def unreachable(self, reply: KubeReply) -> SetupProblem:
        assert reply.error
        return SetupProblem(
            f"the cluster {self.context} does not answer at {self.kube.url}: {WORDS[reply.error]}",
            "see whether it runs, and whether this is the right --context (kubectl config get-contexts)",
        )

    def _require_known(self) -> None:
        reply = self.kube.list("namespaces")
        if reply.status == 401:
            raise SetupProblem(
                f"the cluster {self.context} does not take this kubeconfig's credentials (401)", "log in again"
            )
        if reply.status == 403 and "system:anonymous" in reply.message:
            raise SetupProblem(
                f"the kubeconfig has no credentials for the cluster {self.context}", "log in, or name another --context"
            )
        if reply.error:
            raise self.unreachable(reply)
