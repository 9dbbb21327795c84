"""What a platform that is gone leaves on this machine, whoever provided it."""

import shutil
from pathlib import Path


def clear(home: Path, keep_logs: bool = False) -> None:
    """Empty a platform's state folder. No error if there is none."""
    if not home.exists():
        return
    for entry in home.iterdir():
        if keep_logs and entry.name == "logs":
            continue
        if entry.is_dir() and not entry.is_symlink():
            shutil.rmtree(entry, ignore_errors=True)
        else:
            entry.unlink(missing_ok=True)
