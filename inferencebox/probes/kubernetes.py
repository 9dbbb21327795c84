"""The Kubernetes API as probes: plain REST over the official client's connection, each reply a value.

Every method is one request (or one per document) and gives a `KubeReply`; an API error is an observation with its
reason, never an exception. `reply.require()` is for set-up, where anything but success is a mistake. Paths come from
the aggregated discovery documents (two requests, kept; asked again when a kind is missing, as after installing a CRD).

Texts of refusals: Kubernetes `plugin/pkg/admission/resourcequota` ("exceeded quota") and `limitranger` ("usage per"),
`apiserver/pkg/endpoints/handlers/responsewriters/errors.go` (`is forbidden: User "..." cannot ...`), admission webhooks
("denied the request") and policies ("ValidatingAdmissionPolicy ... denied request"), validation (reason Invalid, status
422; strict decoding, status 400; server-side apply of a wrong type, status 500).
"""

import json
import shlex
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, cast
from urllib.parse import quote, urlencode

import urllib3
import yaml
from kubernetes import client, config
from kubernetes.config.config_exception import ConfigException

from inferencebox import evidence
from inferencebox.checks import that
from inferencebox.errors import SetupProblem
from inferencebox.identity import Token
from inferencebox.probes.http import Transport
from inferencebox.waiting import Timeouts, eventually

Document = Mapping[str, Any]
Documents = str | Path | Document | Sequence[Document]

FIELD_MANAGER = "inferencebox"
TIMEOUT = 20.0
_DISCOVERY = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList"
_APPLY = "application/apply-patch+yaml"
_MERGE = "application/merge-patch+json"
_JSON_PATCH = "application/json-patch+json"


class KubeRefused(AssertionError):
    """The API server did not do what set-up needs."""


@dataclass(frozen=True)
class KubeReply:
    """What the API server said."""

    status: int | None
    reason: str = ""
    message: str = ""
    object: Any = None
    error: Transport | None = None
    asked: str = ""
    tier: str = "kubernetes"

    @property
    def ok(self) -> bool:
        return self.error is None and self.status is not None and self.status < 300

    @property
    def cause(self) -> str | None:
        """Why it was refused: quota, limits, rbac, admission, schema, absent, exists, conflict; else None."""
        return None if self.ok or self.status is None else _cause(self.status, self.reason, self.message)

    @property
    def text(self) -> str:
        return self.message

    @property
    def items(self) -> list[Any]:
        """Of a list: its objects."""
        return list(self.object.get("items") or []) if isinstance(self.object, dict) else []

    def require(self) -> Any:
        """The object; anything but success is an error of the set-up."""
        if not self.ok:
            raise KubeRefused(f"{self.asked}: {self}")
        return self.object

    def __str__(self) -> str:
        if self.error:
            return f"no reply: {self.error.value} ({self.message})"
        cause = f" by {self.cause}" if self.cause else ""
        return f"{self.status}{cause}" + (f" saying {self.message[:160]!r}" if self.message and not self.ok else "")


def _cause(status: int, reason: str, message: str) -> str | None:
    rules: tuple[tuple[str, bool], ...] = (
        ("quota", "exceeded quota" in message),
        ("admission", "denied the request" in message or "denied request" in message),
        ("rbac", status == 403 and (": User " in message or " cannot " in message)),
        ("limits", status == 403 and ("usage per" in message or "limit to request ratio" in message)),
        ("schema", reason == "Invalid" or status == 422 or (status == 400 and "decoding" in message)),
        ("schema", "failed to create typed patch object" in message),
        ("absent", status == 404),
        ("exists", reason == "AlreadyExists"),
        ("conflict", status == 409),
    )
    return next((cause for cause, holds in rules if holds), None)


Replies = list[KubeReply]

Note = Callable[[Document, str, bool], None]
"""Takes an object as it is now, the field manager, and whether it is new."""


@dataclass(frozen=True)
class Resource:
    """A kind and where it lives."""

    group: str
    version: str
    kind: str
    plural: str
    singular: str
    short: tuple[str, ...]
    namespaced: bool
    verbs: tuple[str, ...] = ()

    @property
    def full_name(self) -> str:
        """As kubectl takes it."""
        return f"{self.plural}.{self.group}" if self.group else self.plural

    def answers_to(self, name: str) -> bool:
        """Whether this is meant: kind, plural, singular or short name, also with `.group`."""
        wanted, _, group = name.lower().partition(".")
        names = {self.kind.lower(), self.plural, self.singular.lower(), *self.short}
        return wanted in names and (not group or group == self.group)

    def path(self, namespace: str | None, name: str | None = None, subresource: str = "") -> str:
        root = f"/apis/{self.group}/{self.version}" if self.group else f"/api/{self.version}"
        parts = ["namespaces", namespace] if self.namespaced and namespace else []
        return "/".join([root, *map(quote, filter(None, [*parts, self.plural, name, subresource]))])


@dataclass
class Discovery:
    """The kinds the API server has, asked once and again when one is missing."""

    ask: Callable[[str], Any]
    resources: list[Resource] = field(default_factory=list)

    def all(self) -> list[Resource]:
        self._ask()
        return list({(one.group, one.plural): one for one in reversed(self.resources)}.values())

    def _ask(self) -> None:
        self.resources = [one for root in ("/api", "/apis") for one in _discovered(self.ask(root))]

    def find(self, name: str, api_version: str = "") -> Resource | None:
        found = self._known(name, api_version)
        if found is None:
            self._ask()
            found = self._known(name, api_version)
        return found

    def _known(self, name: str, api_version: str) -> Resource | None:
        for resource in self.resources:
            version = f"{resource.group}/{resource.version}".lstrip("/")
            if resource.answers_to(name) and api_version in ("", version):
                return resource
        return None


def _discovered(document: Any) -> Iterator[Resource]:
    """The resources of an APIGroupDiscoveryList, in the server's order of preference."""
    for group in document.get("items") or []:
        for version in group.get("versions") or []:
            for one in version.get("resources") or []:
                yield Resource(
                    group=group.get("metadata", {}).get("name", ""),
                    version=version["version"],
                    kind=one.get("responseKind", {}).get("kind", ""),
                    plural=one["resource"],
                    singular=one.get("singularResource", ""),
                    short=tuple(one.get("shortNames") or ()),
                    namespaced=one.get("scope") == "Namespaced",
                    verbs=tuple(one.get("verbs") or ()),
                )


def has_fields_of(manager: str, found: Mapping[str, Any]) -> bool:
    """Whether who writes by this name (a field manager) set fields of an object."""
    return any(each.get("manager") == manager for each in found["metadata"].get("managedFields") or [])


def service_account(namespace: str, name: str) -> str:
    """The user name of a service account."""
    return f"system:serviceaccount:{namespace}:{name}"


class Kube:
    """One API server, as one user.

    Args:
        kubeconfig: file with the address and the credentials.
        context: its context; default the current one.
    """

    def __init__(self, kubeconfig: Path, context: str | None = None) -> None:
        settings = client.Configuration()
        try:
            config.load_kube_config(str(kubeconfig), context, settings, persist_config=False)  # type: ignore[no-untyped-call]
        except (ConfigException, OSError) as problem:
            raise SetupProblem(f"cannot use the kubeconfig {kubeconfig}: {problem}", "run `ibox up`") from problem
        settings.retries = False
        settings.connection_pool_maxsize = 32
        self._settings = settings
        self._connections = client.ApiClient(settings).rest_client.pool_manager
        self._user: str | None = None
        self._groups: tuple[str, ...] = ()
        self._told = True
        self._note: Note | None = None
        self._discovery = Discovery(self._discover)

    @property
    def url(self) -> str:
        """Where the API server answers."""
        return str(self._settings.host)

    def acting_as(self, user: str, *groups: str) -> "Kube":
        """The same server, impersonating a user (`service_account(ns, name)` for a service account)."""
        return self._but(_user=user, _groups=groups)

    def quietly(self) -> "Kube":
        """The same server and user, not told to the evidence: for who looks again and again and sums up himself."""
        return self._but(_told=False)

    def noting(self, note: Note) -> "Kube":
        """The same server and user; of each object that is created or applied `note` is told."""
        return self._but(_note=note)

    def _but(self, **changes: object) -> "Kube":
        """The same, with the same connections, but for these attributes."""
        other = object.__new__(Kube)
        other.__dict__.update(self.__dict__, **changes)
        return other

    # --- reading

    def kinds(self) -> "list[Resource]":
        """Every kind the server has, each once, in the version that it prefers; asked anew."""
        return self._discovery.all()

    def get(self, resource: str, name: str, namespace: str | None = None) -> KubeReply:
        """One object. `resource` is a kind, plural or short name, with `.group` if need be."""
        return self._on(resource, "GET", namespace, name, command=["get", resource, name])

    def list(self, resource: str, namespace: str | None = None, labels: str = "") -> KubeReply:
        """All objects, of one namespace or of all; `labels` is a selector. See `KubeReply.items`."""
        query = {"labelSelector": labels} if labels else {}
        words = ["get", resource, *(["-l", labels] if labels else []), *([] if namespace else ["-A"])]
        return self._on(resource, "GET", namespace, query=query, command=words)

    def raw(self, path: str) -> KubeReply:
        """Any path of the API server, such as `/version`."""
        return self._send("GET", path, command=["get", "--raw", path])

    def version(self) -> str:
        """The server's, as `v1.33.4`; it must answer."""
        return str(self.raw("/version").require()["gitVersion"])

    def watch(self, resource: str, namespace: str | None = None, seconds: int = 60) -> Iterator[tuple[str, Any]]:
        """What happens to the objects of a kind: (ADDED, MODIFIED or DELETED, object), first all that are there.

        Ends after so many seconds, or when the connection does: ask again.
        """
        found = self._discovery.find(resource)
        if found is None:
            return
        try:
            response = self._connections.request(
                "GET",
                f"{self._settings.host.rstrip('/')}{found.path(namespace)}?watch=true&timeoutSeconds={seconds}",
                headers=self._identified({"Accept": "application/json"}),
                timeout=urllib3.Timeout(connect=TIMEOUT, read=seconds + TIMEOUT),
                retries=False,
                preload_content=False,
            )
            yield from _events(response)
        except (urllib3.exceptions.HTTPError, ValueError):
            return

    def log(self, namespace: str, pod: str, container: str) -> Iterator[str]:
        """What a container has printed and prints, line by line, until it ends or the connection does."""
        path = f"/api/v1/namespaces/{quote(namespace)}/pods/{quote(pod)}/log?container={quote(container)}&follow=true"
        try:
            response = self._connections.request(
                "GET",
                f"{self._settings.host.rstrip('/')}{path}",
                headers=self._identified({}),
                timeout=urllib3.Timeout(connect=TIMEOUT, read=None),
                retries=False,
                preload_content=False,
            )
            if response.status == 200:
                yield from _lines(response)
        except urllib3.exceptions.HTTPError:
            return

    def can_i(self, verb: str, resource: str, namespace: str | None = None, name: str = "") -> bool:
        """Whether the user (see `acting_as`) may do it, as the API server's authorizer says. `*.*` is everything."""
        named, _, subresource = resource.partition("/")
        found = self._discovery.find(named)
        plural, _, group = named.partition(".")
        wish = {
            "verb": verb,
            "group": found.group if found else group,
            "resource": found.plural if found else plural,
            "subresource": subresource,
            "namespace": namespace or "",
            "name": name,
        }
        body = {"apiVersion": "authorization.k8s.io/v1", "kind": "SelfSubjectAccessReview"}
        reply = self._send(
            "POST",
            "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews",
            {**body, "spec": {"resourceAttributes": wish}},
            command=["auth", "can-i", verb, resource, *([name] if name else []), *_in(namespace)],
        )
        return bool(reply.require()["status"].get("allowed"))

    def wait_condition(
        self,
        resource: str,
        name: str,
        namespace: str | None,
        condition: str,
        status: str = "True",
        within: float | None = None,
    ) -> KubeReply:
        """Wait until the object's condition has that status.

        Conditions of Gateway API routes stand per parent: all parents must have it.
        """
        wish = that(f"{condition}={status}", lambda reply: _holds(reply, condition, status))
        limit = Timeouts.current().ready if within is None else within
        return eventually(lambda: self.get(resource, name, namespace), wish, within=limit)

    # --- changing

    def apply(
        self,
        documents: Documents,
        namespace: str | None = None,
        manager: str = FIELD_MANAGER,
        dry_run: bool = False,
    ) -> Replies:
        """Server-side apply of YAML text, a file, or documents; forced, in order. `namespace` is for those without.

        With `dry_run` nothing is stored, and a field that its kind does not know is refused.
        """
        query = {"fieldManager": manager, "force": "true"}
        command = ["apply", "--server-side", "--force-conflicts", f"--field-manager={manager}", "-f", "-"]
        if dry_run:
            query |= {"dryRun": "All", "fieldValidation": "Strict"}
            command[1:1] = ["--dry-run=server", "--validate=strict"]
        made = (
            self._on_document(document, "PATCH", namespace, query, _APPLY, command) for document in parse(documents)
        )
        return [self._noted(reply, manager, dry_run) for reply in made]

    def create(self, document: Document, namespace: str | None = None, dry_run: bool = False) -> KubeReply:
        query = {"fieldManager": FIELD_MANAGER, **({"dryRun": "All"} if dry_run else {})}
        command = ["create", *(["--dry-run=server"] if dry_run else []), "-f", "-"]
        reply = self._on_document(document, "POST", namespace, query, "application/json", command)
        return self._noted(reply, FIELD_MANAGER, dry_run)

    def replace(self, document: Document) -> KubeReply:
        """Put it in the place of the object of its name; with a `resourceVersion`, only if that is still current."""
        return self._on_document(document, "PUT", None, {}, "application/json", ["replace", "-f", "-"])

    def create_as(
        self, user: str, document: Document, namespace: str | None = None, dry_run: bool = False
    ) -> KubeReply:
        """Create as somebody else."""
        return self.acting_as(user).create(document, namespace, dry_run)

    def patch(
        self, resource: str, name: str, namespace: str | None, change: "Document | Sequence[Document]"
    ) -> KubeReply:
        """A merge patch (a mapping) or a JSON patch (a list of operations). `node/status` means the subresource."""
        kind, media = ("merge", _MERGE) if isinstance(change, Mapping) else ("json", _JSON_PATCH)
        plural, _, subresource = resource.partition("/")
        part = [f"--subresource={subresource}"] if subresource else []
        words = ["patch", plural, name, *part, f"--type={kind}", "-p", json.dumps(change)]
        return self._on(resource, "PATCH", namespace, name, change, media, command=words)

    def delete(self, resource: str, name: str, namespace: str | None = None, grace: int | None = None) -> KubeReply:
        """Delete one object and what it owns; an absent one is a reply with status 404.

        Args:
            grace: seconds that a pod has to end; default: as many as it asks for.
        """
        query = {"propagationPolicy": "Background"}  # as kubectl does; the API server would leave the pods of a Job
        if grace is not None:
            query["gracePeriodSeconds"] = str(grace)
        flags = [] if grace is None else [f"--grace-period={grace}"]
        return self._on(resource, "DELETE", namespace, name, query=query, command=["delete", resource, name, *flags])

    def delete_all(self, documents: Documents, namespace: str | None = None) -> Replies:
        """Delete what `apply` made of the same documents, in reverse order."""
        return [
            self._on_document(document, "DELETE", namespace, {}, "application/json", ["delete", "-f", "-"])
            for document in reversed(parse(documents))
        ]

    def token(self, namespace: str, account: str, seconds: int = 3600, audiences: Sequence[str] = ()) -> Token:
        """A token of a service account, from the TokenRequest API."""
        spec = {"expirationSeconds": seconds, **({"audiences": [*audiences]} if audiences else {})}
        body = {"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": spec}
        path = f"/api/v1/namespaces/{quote(namespace)}/serviceaccounts/{quote(account)}/token"
        reply = self._send("POST", path, body, command=["create", "token", account, *_in(namespace)], told=False)
        value = str(reply.require()["status"]["token"])
        evidence.register_secret(value, "$TOKEN")
        return Token(value, f"service account {namespace}/{account}")

    # --- sending

    def _noted(self, reply: KubeReply, manager: str, dry_run: bool) -> KubeReply:
        if self._note is not None and reply.ok and not dry_run and reply.object["metadata"].get("uid"):
            self._note(reply.object, manager, reply.status == 201)
        return reply

    def _on_document(
        self,
        document: Document,
        method: str,
        namespace: str | None,
        query: Mapping[str, str],
        media: str,
        command: Sequence[str],
    ) -> KubeReply:
        metadata = document.get("metadata", {})
        where = metadata.get("namespace") or namespace
        name = None if method == "POST" else metadata.get("name")
        body = None if method == "DELETE" else document
        kind, version = document.get("kind", ""), document.get("apiVersion", "")
        return self._on(kind, method, where, name, body, media, query, command, version)

    def _on(
        self,
        resource: str,
        method: str,
        namespace: str | None,
        name: str | None = None,
        body: object = None,
        media: str = "application/json",
        query: Mapping[str, str] | None = None,
        command: Sequence[str] = (),
        api_version: str = "",
    ) -> KubeReply:
        resource, _, subresource = resource.partition("/")
        found = self._discovery.find(resource, api_version)
        words = [*command, *_in(namespace if found is None or found.namespaced else None)]
        if found is None:
            known = f"{resource} {api_version}".strip()
            return KubeReply(404, "NotFound", f"the server has no resource {known}", asked=self._command(words))
        if found.namespaced and namespace is None and (name or method == "POST"):
            namespace = "default"
        path = found.path(namespace, name, subresource) + (f"?{urlencode(query)}" if query else "")
        return self._send(method, path, body, media, words)

    def _send(
        self,
        method: str,
        path: str,
        body: object = None,
        media: str = "application/json",
        command: Sequence[str] = (),
        told: bool = True,
    ) -> KubeReply:
        data = None if body is None else json.dumps(body).encode()
        line = self._command(command)
        reply = replace(
            self._request(method, path, data, {"Content-Type": media, "Accept": "application/json"}), asked=line
        )
        if told and self._told:
            facts = {"status": reply.status, "summary": str(reply), "body": reply.object}
            evidence.exchange({"name": line, "method": method, "url": path, "body": body}, facts, line)
        return reply

    def _request(self, method: str, path: str, data: bytes | None, headers: Mapping[str, str]) -> KubeReply:
        try:
            response = self._connections.request(
                method,
                self._settings.host.rstrip("/") + path,
                body=data,
                headers=self._identified(headers),
                timeout=urllib3.Timeout(total=TIMEOUT),
                retries=False,
            )
        except urllib3.exceptions.HTTPError as problem:
            return KubeReply(None, error=_transport(problem), message=str(problem))
        return _read(response.status, response.data)

    def _identified(self, headers: Mapping[str, str]) -> urllib3.HTTPHeaderDict:
        sent = urllib3.HTTPHeaderDict(headers)
        auths = cast(dict[str, dict[str, str]], self._settings.auth_settings())
        for auth in auths.values():
            if auth["in"] == "header" and auth["value"]:
                sent[auth["key"]] = auth["value"]
        if self._user:
            sent["Impersonate-User"] = self._user
            for group in self._groups:
                sent.add("Impersonate-Group", group)
        return sent

    def _discover(self, root: str) -> Any:
        reply = self._request("GET", root, None, {"Accept": _DISCOVERY})
        if not reply.ok:
            raise SetupProblem(
                f"the Kubernetes API at {self._settings.host} does not tell its kinds: {reply}",
                "see whether it runs, and whether this is its kubeconfig",
            )
        return reply.object

    def _command(self, words: Iterable[str]) -> str:
        groups = [f"--as-group={group}" for group in self._groups]
        return shlex.join(["kubectl", *words, *([f"--as={self._user}", *groups] if self._user else [])])


def parse(documents: Documents) -> list[Document]:
    """The Kubernetes documents of YAML text, of a file, or given as they are; empty ones are left out."""
    if isinstance(documents, Path):
        documents = documents.read_text()
    if isinstance(documents, str):
        return [document for document in yaml.safe_load_all(documents) if document]
    return [documents] if isinstance(documents, Mapping) else [*documents]


def _in(namespace: str | None) -> list[str]:
    return ["-n", namespace] if namespace else []


def _read(status: int, data: bytes) -> KubeReply:
    try:
        document = json.loads(data) if data else None
    except ValueError:
        return KubeReply(status, message=data[:1000].decode("utf-8", "replace"))
    if isinstance(document, dict) and document.get("kind") == "Status" and status >= 300:
        return KubeReply(status, document.get("reason", ""), document.get("message", ""), document)
    return KubeReply(status, object=document)


def _events(response: urllib3.BaseHTTPResponse) -> Iterator[tuple[str, Any]]:
    """The lines of a watch; its connection is closed when nobody reads on."""
    rest = b""
    try:
        if response.status != 200:
            return
        for chunk in response.stream(65536, decode_content=True):
            *lines, rest = (rest + chunk).split(b"\n")
            for line in filter(None, lines):
                event = json.loads(line)
                yield event["type"], event["object"]
    finally:
        response.close()


def _lines(response: urllib3.BaseHTTPResponse) -> Iterator[str]:
    rest = b""
    try:
        for chunk in response.stream(65536, decode_content=True):
            *lines, rest = (rest + chunk).split(b"\n")
            for line in lines:
                yield line.decode(errors="replace")
        if rest:
            yield rest.decode(errors="replace")
    finally:
        response.close()


def _transport(problem: urllib3.exceptions.HTTPError) -> Transport:
    if isinstance(problem, urllib3.exceptions.NameResolutionError):
        return Transport.DNS
    if isinstance(problem, urllib3.exceptions.NewConnectionError):
        return Transport.REFUSED
    if isinstance(problem, urllib3.exceptions.SSLError):
        return Transport.TLS
    return Transport.TIMEOUT if isinstance(problem, urllib3.exceptions.TimeoutError) else Transport.RESET


def is_ready(found: Mapping[str, Any]) -> bool:
    """Whether an object (a pod, a node, an InferenceService) says of itself that it is Ready."""
    conditions = found.get("status", {}).get("conditions") or []
    return any(each["type"] == "Ready" and each["status"] == "True" for each in conditions)


def _holds(reply: KubeReply, condition: str, status: str) -> bool:
    state = (reply.object or {}).get("status", {}) if reply.ok else {}
    parents = state.get("parents") or state.get("ancestors") or [state]
    found = [[c["status"] for c in parent.get("conditions") or [] if c["type"] == condition] for parent in parents]
    return all(statuses == [status] for statuses in found)
