"""A Kubernetes API over HTTP, in memory: discovery, objects by path, label selectors, versions that are held to."""

import copy
import itertools
import json
import threading
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import yaml
from loopback import reply

from inferencebox.platform import Endpoint

Document = dict[str, Any]
KINDS = {
    ("", "v1"): ["Namespace", "Node", "ConfigMap", "Secret", "Pod", "Event", "ServiceAccount"],
    ("apps", "v1"): ["Deployment", "DaemonSet", "StatefulSet"],
    ("coordination.k8s.io", "v1"): ["Lease"],
    ("rbac.authorization.k8s.io", "v1"): ["ClusterRole", "ClusterRoleBinding"],
    ("batch", "v1"): ["Job"],
    ("apiextensions.k8s.io", "v1"): ["CustomResourceDefinition"],
    ("authorization.k8s.io", "v1"): ["SelfSubjectAccessReview"],
    ("authentication.k8s.io", "v1"): ["SelfSubjectReview"],
    ("things.example", "v1"): ["Thing"],
}
CLUSTER_WIDE = {"Namespace", "Node", "ClusterRole", "ClusterRoleBinding", "CustomResourceDefinition"}
OLD = "2026-01-01T00:00:00Z"


class SmallApi:
    """Answers like an API server. Two kinds of review are answered by `may`; a namespace takes all in it along."""

    def __init__(self, *documents: Document) -> None:
        self.objects: dict[str, Document] = {}
        self.sent: list[tuple[str, str]] = []
        self.refusals: dict[tuple[str, str], int] = {}
        self.forbidden: set[tuple[str, str]] = set()
        self.git_version = "v1.33.4"
        self.now = "2026-11-21T12:00:00Z"
        self._numbers = itertools.count(1)
        self._lock = threading.RLock()
        for document in documents:
            self.put(document, created=OLD)

    def put(self, document: Document, created: str = "") -> Document:
        """As somebody else would; the cluster's own objects are old."""
        path = self.path(document)
        known = self.objects.get(path, {"metadata": {"uid": f"uid-{next(self._numbers)}"}})
        kept = copy.deepcopy(document)
        kept["metadata"] = {
            "creationTimestamp": known["metadata"].get("creationTimestamp", created or self.now),
            **kept["metadata"],
            "uid": known["metadata"]["uid"],
            "resourceVersion": str(next(self._numbers)),
        }
        self.objects[path] = kept
        return kept

    def names(self) -> set[str]:
        return {f"{each['kind']} {each['metadata']['name']}" for each in self.objects.values()}

    def get(self, kind: str, name: str) -> Document | None:
        found = (each for each in self.objects.values() if (each["kind"], each["metadata"]["name"]) == (kind, name))
        return next(found, None)

    def path(self, document: Document) -> str:
        group = document["apiVersion"].rpartition("/")[0]
        root = f"/apis/{document['apiVersion']}" if group else "/api/v1"
        metadata = document["metadata"]
        space = "" if document["kind"] in CLUSTER_WIDE else f"/namespaces/{metadata.get('namespace', 'default')}"
        return f"{root}{space}/{_plural(document['kind'])}/{metadata['name']}"

    def __call__(self, request: bytes) -> bytes:
        with self._lock:
            head, _, body = request.partition(b"\r\n\r\n")
            method, target, _ = head.split(b"\r\n")[0].decode().split(" ")
            status, answer = self._answer(method, target, json.loads(body) if body else {})
            return reply(status, json.dumps(answer).encode(), content_type="application/json")

    def _answer(self, method: str, target: str, body: Document) -> tuple[int, Document]:
        parts = urlsplit(target)
        path, query = parts.path, parse_qs(parts.query)
        if path in ("/api", "/apis"):
            return 200, _discovery(core=path == "/api")
        if path == "/version":
            return 200, {"gitVersion": self.git_version}
        self.sent.append((method, path))
        if status := self.refusals.get((method, path.rpartition("/")[2])):
            return status, {"kind": "Status", "reason": "Forbidden", "message": 'User "me" cannot do that'}
        if path.endswith("reviews"):
            return 201, self._review(body)
        return self._on_object(method, path, query, body)

    def _on_object(self, method: str, path: str, query: Any, body: Document) -> tuple[int, Document]:
        known = self.objects.get(path)
        match method:
            case "GET" if known:
                return 200, known
            case "GET" if _is_collection(path):
                return 200, {"items": self._list(path, query.get("labelSelector", [""])[0])}
            case "POST":
                return (409, _status("AlreadyExists")) if self.path(body) in self.objects else (201, self.put(body))
            case "PUT" if known:
                current = body["metadata"].get("resourceVersion") == known["metadata"]["resourceVersion"]
                return (200, self.put(body)) if current else (409, _status("Conflict"))
            case "PATCH" if "fieldManager" in query:
                return 200, self.put({**(known or {}), **body})
            case "DELETE" if known:
                self._delete(path)
                return 200, known
        return 404, _status("NotFound")

    def _list(self, path: str, selector: str) -> list[Document]:
        wanted = [pair.split("=") for pair in filter(None, selector.split(","))]
        plural, root = path.rpartition("/")[2], path.rpartition("/")[0]
        return [
            each
            for where, each in sorted(self.objects.items())
            if where.split("/")[-2] == plural
            and where.startswith(f"{root}/")
            and all((each["metadata"].get("labels") or {}).get(name) == value for name, value in wanted)
        ]

    def _delete(self, path: str) -> None:
        gone = self.objects.pop(path)
        if gone["kind"] == "Namespace":
            inside = f"/namespaces/{gone['metadata']['name']}/"
            self.objects = {where: each for where, each in self.objects.items() if inside not in where}

    def _review(self, body: Document) -> Document:
        if body["kind"] == "SelfSubjectReview":
            return {"status": {"userInfo": {"username": "me@example"}}}
        wish = body["spec"]["resourceAttributes"]
        resource = "/".join(filter(None, [wish["resource"], wish["subresource"]]))
        everything = wish["resource"] == "*" and not self.forbidden
        return {"status": {"allowed": everything or (wish["verb"], resource) not in {*self.forbidden, ("*", "*")}}}


def kubeconfig(endpoint: Endpoint, folder: Path, context: str = "lab") -> Path:
    """A client configuration for it."""
    file = folder / "config"
    document = {
        "apiVersion": "v1",
        "kind": "Config",
        "current-context": context,
        "contexts": [{"name": context, "context": {"cluster": "c", "user": "u"}}],
        "clusters": [{"name": "c", "cluster": {"server": endpoint.url}}],
        "users": [{"name": "u", "user": {"token": "admin-token"}}],
    }
    file.write_text(yaml.safe_dump(document))
    return file


def _plural(kind: str) -> str:
    return f"{kind.lower()}s"


def _is_collection(path: str) -> bool:
    return path.rpartition("/")[2] in {_plural(kind) for kinds in KINDS.values() for kind in kinds}


def _status(reason: str) -> Document:
    return {"kind": "Status", "status": "Failure", "reason": reason, "message": reason}


def _discovery(core: bool) -> Document:
    return {
        "items": [
            {"metadata": {"name": group}, "versions": [{"version": version, "resources": [*map(_resource, kinds)]}]}
            for (group, version), kinds in KINDS.items()
            if core == (not group)
        ]
    }


def _resource(kind: str) -> Document:
    scope = "Cluster" if kind in CLUSTER_WIDE or kind.endswith("Review") else "Namespaced"
    names = {"resource": _plural(kind), "singularResource": kind.lower(), "scope": scope}
    verbs = ["create"] if kind.endswith("Review") else ["list", "delete", "get", "create", "patch"]
    return {**names, "responseKind": {"kind": kind}, "verbs": verbs}
