"""Kubernetes objects that only `local` needs: what a cluster's charts, kubelet and certificate manager would have
made."""

import base64
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from inferencebox.manifests import Document
from inferencebox.paths import manifests_dir

from .addresses import PODS
from .gateway_agent import SYSTEM, owner_labels

SYSTEM_NAMESPACES = ("istio-system", SYSTEM, "envoy-ai-gateway-system")


def namespace(name: str) -> Document:
    return {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}}


def service_account(namespace: str, name: str) -> Document:
    return {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": name, "namespace": namespace}}


def secret(namespace: str, name: str, data: Mapping[str, bytes], kind: str = "Opaque") -> Document:
    encoded = {key: base64.b64encode(value).decode() for key, value in data.items()}
    metadata = {"name": name, "namespace": namespace}
    return {"apiVersion": "v1", "kind": "Secret", "metadata": metadata, "type": kind, "data": encoded}


def webhook(authority: bytes) -> Document:
    """The AI Gateway's admission webhook, by address: the API server resolves no Service names here."""
    return {
        "apiVersion": "admissionregistration.k8s.io/v1",
        "kind": "MutatingWebhookConfiguration",
        "metadata": {"name": "envoy-ai-gateway-gateway-pod-mutator.envoy-ai-gateway-system"},
        "webhooks": [
            {
                "name": "ai-gateway-controller.envoy-ai-gateway-system.svc.cluster.local",
                "clientConfig": {
                    "url": f"https://{PODS['ai-gateway-controller']}:9443/mutate",
                    "caBundle": base64.b64encode(authority).decode(),
                },
                "rules": [{"apiGroups": [""], "apiVersions": ["v1"], "operations": ["CREATE"], "resources": ["pods"]}],
                "objectSelector": {
                    "matchLabels": {
                        "app.kubernetes.io/managed-by": "envoy-gateway",
                        "app.kubernetes.io/component": "proxy",
                    }
                },
                "sideEffects": "None",
                "admissionReviewVersions": ["v1"],
                "failurePolicy": "Fail",
            }
        ],
    }


def gateway_stand_ins(gateway: str, namespace: str) -> list[Document]:
    """Service and Deployment of the tier-1 Envoy: the Gateway takes its address and readiness from their status."""
    labels = owner_labels(gateway, namespace)
    metadata = {"name": f"envoy-{namespace}-{gateway}", "namespace": SYSTEM, "labels": labels}
    template = {"metadata": {"labels": labels}, "spec": {"containers": [{"name": "envoy", "image": "envoy"}]}}
    return [
        {
            "apiVersion": "v1",
            "kind": "Service",
            "metadata": metadata,
            "spec": {"type": "ClusterIP", "ports": [{"name": "http", "port": 80}, {"name": "https", "port": 443}]},
        },
        {
            "apiVersion": "apps/v1",
            "kind": "Deployment",
            "metadata": metadata,
            "spec": {"replicas": 0, "selector": {"matchLabels": labels}, "template": template},
        },
    ]


# observedGeneration far ahead: the AI Gateway controller would rewrite its Secret for ever if it lagged behind
DEPLOYMENT_STATUS: dict[str, Any] = {
    "status": {
        "observedGeneration": 1000000,
        "replicas": 1,
        "updatedReplicas": 1,
        "readyReplicas": 1,
        "availableReplicas": 1,
    }
}


def crd_files(files: Mapping[str, Path]) -> list[Path]:
    """Custom resource definitions as the vendors ship them, out of their pinned modules, and our own.

    Of KServe the kind alone, without a controller: models can be declared, changed and removed, and none ever runs.

    Args:
        files: layer -> what is kept of its module.
    """
    charts = files["envoy-gateway"] / "charts" / "gateway-helm" / "charts" / "crds" / "crds"
    kserve = files["kserve"] / "charts" / "kserve-crd-minimal" / "templates"
    return [
        charts / "gatewayapi-crds.yaml",
        charts / "generated",
        files["ai-gateway"] / "manifests" / "charts" / "ai-gateway-crds-helm" / "templates",
        files["istio"] / "manifests" / "charts" / "base" / "files" / "crd-all.gen.yaml",
        kserve / "serving.kserve.io_inferenceservices.yaml",
        manifests_dir() / "management" / "crds",
    ]
