"""The small models that the platform serves, trained once on this machine and kept in the cache."""

import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from filelock import FileLock

from inferencebox.errors import SetupProblem
from inferencebox.layers.fingerprint import fingerprint
from inferencebox.paths import cache_dir, project_root


def trained_models() -> Path:
    """Folder of artifacts that ``model-server train`` made from the sources as they are now."""
    sources = sorted((project_root() / "services" / "model_server" / "src").rglob("*.py"))
    target = cache_dir() / "models" / fingerprint(sources)
    target.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(target.with_suffix(".lock")):
        if not target.exists():
            _train(target)
    return target


def _train(target: Path) -> None:
    partial = Path(tempfile.mkdtemp(dir=target.parent))
    command = [str(Path(sys.executable).parent / "model-server"), "train", "--out", str(partial)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        shutil.rmtree(partial)
        raise SetupProblem(f"the models could not be trained: {done.stderr.strip()[-300:]}", "run `make setup` again")
    partial.rename(target)
