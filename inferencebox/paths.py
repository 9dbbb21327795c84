"""Where things live on this machine: the cache (can be deleted), the state of an instance, the project."""

import os
from pathlib import Path

import platformdirs

APP = "inferencebox"


def cache_dir() -> Path:
    """Programs, images and snapshots, by content. Safe to delete; `$IBOX_CACHE` overrides it."""
    return Path(os.environ.get("IBOX_CACHE") or platformdirs.user_cache_path(APP))


def state_dir(instance: str) -> Path:
    """Everything one running platform writes: state file, logs, sockets. `$IBOX_STATE` overrides the parent."""
    return Path(os.environ.get("IBOX_STATE") or platformdirs.user_state_path(APP)) / instance


def project_root() -> Path:
    """The checkout: manifests/, programs/, services/ are read from here."""
    return Path(__file__).resolve().parent.parent


def programs_dir() -> Path:
    return project_root() / "programs"


def manifests_dir() -> Path:
    return project_root() / "manifests"
