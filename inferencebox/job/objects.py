"""What a run of the suite in a cluster consists of: a Job, and whom it runs as."""

from collections.abc import Sequence
from typing import Any

from inferencebox.layers.install import NAMESPACE
from inferencebox.layers.labels import INSTANCE
from inferencebox.manifests import Document

JOB_LABEL = "inference-in-a-box/job"
SUITE, RESULTS = "suite", "results"
"""The two containers: one runs the scenarios, its log is what the terminal shows; the other's log is the record."""
REPORTS = "/reports"
DEADLINE_SECONDS = 6 * 3600
KEPT_SECONDS = 300
"""After its end the Job goes by itself, should nobody be there to remove it."""
GRACE_SECONDS = 30
LIMITS = {"cpu": "2", "memory": "1Gi"}
REQUESTS = {"cpu": "50m", "memory": "192Mi"}


def binding_of(name: str) -> str:
    """What makes a Job's account an administrator."""
    return f"inferencebox-{name}"


def account(name: str, instance: str) -> list[Document]:
    """Whom it runs as. Scenarios make namespaces, roles and policies and act as others: that takes an administrator."""
    subject = {"kind": "ServiceAccount", "name": name, "namespace": NAMESPACE}
    role = {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "cluster-admin"}
    metadata = _metadata(name, name, instance)
    binding = _metadata(binding_of(name), name, instance)
    return [
        {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {**metadata, "namespace": NAMESPACE}},
        {
            "apiVersion": "rbac.authorization.k8s.io/v1",
            "kind": "ClusterRoleBinding",
            "metadata": binding,
            "subjects": [subject],
            "roleRef": role,
        },
    ]


def job(name: str, instance: str, image: str, arguments: Sequence[str]) -> Document:
    """The Job.

    Args:
        name: of it, and of its service account.
        instance: the platform that it is about.
        arguments: for pytest.
    """
    words = ["--provider", "cluster", "--reuse", "--instance", instance, f"--reports={REPORTS}", *arguments]
    labels = {JOB_LABEL: name, INSTANCE: instance, "sidecar.istio.io/inject": "false"}
    return {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": {**_metadata(name, name, instance), "namespace": NAMESPACE},
        "spec": {
            "backoffLimit": 0,
            "activeDeadlineSeconds": DEADLINE_SECONDS,
            "ttlSecondsAfterFinished": KEPT_SECONDS,
            "template": {
                "metadata": {"labels": labels},
                "spec": {
                    "serviceAccountName": name,
                    "restartPolicy": "Never",
                    "terminationGracePeriodSeconds": GRACE_SECONDS,
                    "containers": [
                        _container(SUITE, image, ["inferencebox.job.inside", REPORTS, *words]),
                        _container(RESULTS, image, ["inferencebox.job.results", REPORTS]),
                    ],
                    "volumes": [{"name": "reports", "emptyDir": {}}],
                },
            },
        },
    }


def _container(name: str, image: str, words: Sequence[str]) -> dict[str, Any]:
    return {
        "name": name,
        "image": image,
        "imagePullPolicy": "IfNotPresent",
        "command": ["python3", "-u", "-m", *words],
        "resources": {"requests": REQUESTS, "limits": LIMITS},
        "volumeMounts": [{"name": "reports", "mountPath": REPORTS}],
    }


def _metadata(name: str, job_name: str, instance: str) -> dict[str, Any]:
    return {"name": name, "labels": {JOB_LABEL: job_name, INSTANCE: instance}}
