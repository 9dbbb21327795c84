"""The client configuration of somebody's cluster: found as kubectl finds it, and kept as one context of it."""

import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import yaml

from inferencebox.errors import SetupProblem

VARIABLE = "KUBECONFIG"
PATHS = {"cluster": ("certificate-authority",), "user": ("client-certificate", "client-key", "tokenFile")}
"""Fields that name files, relative to the file that has them."""
USUAL = Path.home() / ".kube" / "config"
SERVICE_ACCOUNT = Path("/var/run/secrets/kubernetes.io/serviceaccount")


def chosen(given: Path | None, context: str) -> dict[str, Any]:
    """One context with its cluster and its user, as a client configuration of its own.

    Args:
        given: a file; none for `$KUBECONFIG` (several files, as kubectl takes them), kubectl's usual file, or, in a
            pod, its cluster.
        context: empty for the current one.

    Raises:
        SetupProblem: there is no such file or context, or it is no client configuration.
    """
    if given is None and _is_in_a_pod():
        return of_this_pod()
    documents = [(file, read(file)) for file in _files(given)]
    names = [str(each["name"]) for _, document in documents for each in document.get("contexts") or []]
    said = next((document["current-context"] for _, document in documents if document.get("current-context")), "")
    wanted = context or said
    where = " and ".join(str(file) for file, _ in documents)
    if not wanted or wanted not in names:
        what = f"there is no context {wanted!r} in {where}" if wanted else f"{where} has no current context"
        raise SetupProblem(what, f"--context: one of {', '.join(names)}" if names else "name a file with --kubeconfig")
    entry = _named(documents, "context", wanted, where)
    cluster = _named(documents, "cluster", entry.get("cluster", ""), where)
    user = _named(documents, "user", entry["user"], where) if entry.get("user") else {}
    return _document(wanted, cluster, user)


def _is_in_a_pod() -> bool:
    """As kubectl sees it: nothing was named, and a service account's token is there."""
    return not os.environ.get(VARIABLE) and not USUAL.exists() and (SERVICE_ACCOUNT / "token").exists()


def of_this_pod() -> dict[str, Any]:
    """Of the cluster that this process runs in, as its service account."""
    host, port = os.environ["KUBERNETES_SERVICE_HOST"], os.environ["KUBERNETES_SERVICE_PORT"]
    address = f"[{host}]" if ":" in host else host
    cluster = {"server": f"https://{address}:{port}", "certificate-authority": str(SERVICE_ACCOUNT / "ca.crt")}
    return _document("in-cluster", cluster, {"tokenFile": str(SERVICE_ACCOUNT / "token")})


def write(path: Path, document: Mapping[str, Any]) -> None:
    """Nobody else reads it: it may hold credentials."""
    path.touch(mode=0o600)
    path.chmod(0o600)
    path.write_text(yaml.safe_dump(dict(document)))


def context_of(path: Path) -> str:
    """The context that a file of ours is of."""
    return str(read(path).get("current-context", ""))


def server_of(document: Mapping[str, Any]) -> str:
    """Where the API of the only cluster in it answers."""
    return str(document["clusters"][0]["cluster"].get("server", "")).rstrip("/")


def _document(context: str, cluster: Mapping[str, Any], user: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "apiVersion": "v1",
        "kind": "Config",
        "current-context": context,
        "contexts": [{"name": context, "context": {"cluster": context, "user": context}}],
        "clusters": [{"name": context, "cluster": dict(cluster)}],
        "users": [{"name": context, "user": dict(user)}],
    }


def _files(given: Path | None) -> list[Path]:
    if given:
        return [given.expanduser().absolute()]
    named = [Path(part) for part in os.environ.get(VARIABLE, "").split(os.pathsep) if part]
    there = [file for file in named if file.exists()] or named[:1]
    return there or [USUAL]


def read(file: Path) -> dict[str, Any]:
    """A client configuration as it is.

    Raises:
        SetupProblem: there is none.
    """
    fix = "name another one with --kubeconfig, or set KUBECONFIG"
    try:
        document = yaml.safe_load(file.read_text())
    except OSError as problem:
        raise SetupProblem(f"there is no kubeconfig {file} ({problem.strerror})", fix) from None
    except (yaml.YAMLError, UnicodeDecodeError):
        raise SetupProblem(f"{file} is no kubeconfig: it is not YAML", fix) from None
    if not isinstance(document, dict):
        raise SetupProblem(f"{file} is no kubeconfig", fix)
    return document


def _named(documents: Iterable[tuple[Path, Mapping[str, Any]]], what: str, name: str, where: str) -> dict[str, Any]:
    for file, document in documents:
        for each in document.get(f"{what}s") or []:
            if each.get("name") == name:
                return _with_whole_paths(dict(each.get(what) or {}), PATHS.get(what, ()), file.parent)
    raise SetupProblem(f"{where} names the {what} {name!r} and does not have it", "correct the file")


def _with_whole_paths(entry: dict[str, Any], fields: Iterable[str], home: Path) -> dict[str, Any]:
    return {**entry, **{field: str((home / entry[field]).resolve()) for field in fields if entry.get(field)}}
