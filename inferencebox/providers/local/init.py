"""First process of the box: makes a root file system and a network of its own, then becomes supervisord.

Runs as ``python -m inferencebox.providers.local.init STATE_DIR`` inside fresh namespaces.

Why a root of its own: Envoy Gateway reads ``/certs``, Envoy AI Gateway talks over ``/etc/ai-gateway-extproc-uds``, and
``/etc/hosts`` is how programs find each other here. Overlay mounts are refused in a user namespace on some kernels, so
the root is a small tmpfs into which the machine's directories are bound.
"""

import os
import subprocess
import sys
from pathlib import Path

from . import plumber
from .box import SHORT_STATE

KEPT_OUT = {"etc", "certs", "run", "proc", "state"}
OWN_ETC = {"hosts", "resolv.conf", "ai-gateway-extproc-uds"}


def main(state: Path) -> None:
    root = state / "root"
    root.mkdir(exist_ok=True)
    _mount("-t", "tmpfs", "tmpfs", root)
    for entry in Path("/").iterdir():
        if entry.name not in KEPT_OUT:
            _mirror(entry, root / entry.name)
    _own_etc(root)
    _own_proc(root)
    # Envoy keeps its hot-restart memory there by a fixed name: another platform's would be in the way
    _mount("-t", "tmpfs", "tmpfs", root / "dev" / "shm")
    (root / "run" / "netns").mkdir(parents=True)
    _mount("-t", "tmpfs", "tmpfs", root / "run")
    (root / "run" / "netns").mkdir(parents=True)
    os.symlink(state / "certs", root / "certs")
    os.symlink(state, root / SHORT_STATE.relative_to("/"))
    os.chroot(root)
    os.chdir("/")
    plumber.make_bridge()
    os.execv(
        sys.executable, [sys.executable, "-m", "supervisor.supervisord", "-n", "-c", str(state / "supervisord.conf")]
    )


def _mirror(entry: Path, target: Path) -> None:
    if entry.is_symlink():
        os.symlink(os.readlink(entry), target)
    elif entry.is_dir():
        target.mkdir()
        subprocess.run(["mount", "--rbind", str(entry), str(target)], capture_output=True, check=False)


def _own_etc(root: Path) -> None:
    """An /etc that is the machine's by links, but for the few names that are ours."""
    host_etc = root / ".etc"
    host_etc.mkdir()
    _mount("--rbind", "/etc", host_etc)
    etc = root / "etc"
    etc.mkdir()
    for entry in Path("/etc").iterdir():
        if entry.name not in OWN_ETC:
            os.symlink(f"/.etc/{entry.name}", etc / entry.name)
    state = root.parent
    os.symlink(state / "hosts", etc / "hosts")
    (etc / "resolv.conf").write_text("")
    (etc / "ai-gateway-extproc-uds").mkdir()


def _own_proc(root: Path) -> None:
    """A /proc that numbers processes as the box does; where the kernel refuses one, the machine's."""
    proc = root / "proc"
    proc.mkdir()
    fresh = subprocess.run(["mount", "-t", "proc", "proc", str(proc)], capture_output=True, check=False)
    if fresh.returncode != 0:
        _mount("--rbind", "/proc", proc)


def _mount(*args: str | Path) -> None:
    subprocess.run(["mount", *map(str, args)], check=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
