"""A fresh API with the vendors' custom resource definitions in it, kept so that the next platform starts fast."""

import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path

from inferencebox.layers.fingerprint import fingerprint
from inferencebox.paths import cache_dir

from .control_plane import ControlPlane, Kubectl
from .supervisor import Supervisor


def path_for(plane: ControlPlane, crds: Sequence[Path]) -> Path:
    """Where the snapshot of this API server with these definitions is, or would be."""
    files = [file for path in crds for file in (sorted(path.glob("*.yaml")) if path.is_dir() else [path])]
    return cache_dir() / "snapshots" / fingerprint(files, plane.version)


def restore(plane: ControlPlane, crds: Sequence[Path]) -> bool:
    """Start from the snapshot if there is one."""
    snapshot = path_for(plane, crds)
    if snapshot.exists():
        shutil.copytree(snapshot, plane.etcd_data)
        return True
    return False


def install_crds(kubectl: Kubectl, crds: Sequence[Path]) -> None:
    """Server-side: some are larger than the annotation of a client-side apply may be."""
    files = [argument for path in crds for argument in ("-f", str(path))]
    kubectl.run("apply", "--server-side", "--force-conflicts", *files)
    kubectl.run("wait", "--for=condition=Established", "crd", "--all", "--timeout=60s")


def take(plane: ControlPlane, crds: Sequence[Path], supervisor: Supervisor) -> None:
    """Keep the API's data as it is now. API server and etcd are stopped meanwhile and started again."""
    target = path_for(plane, crds)
    target.parent.mkdir(parents=True, exist_ok=True)
    supervisor.stop("kube-apiserver")
    supervisor.stop("etcd")
    partial = Path(tempfile.mkdtemp(dir=target.parent))
    shutil.copytree(plane.etcd_data, partial, dirs_exist_ok=True)
    partial.replace(target)
    supervisor.start("etcd", "kube-apiserver")
