"""Containers' logs as a node keeps them, for who can read its files: asking a kubelet to follow them costs it, the API
server and the container runtime a fifth of a core for a hundred containers (seen on a Kind node of two).

`<namespace>_<pod>_<uid>/<container>/<restarts>.log`, a line as the container runtime interface has it: time, stream,
`F` or `P` (full, or a part of a line), and what was written (Kubernetes, `pkg/kubelet/kuberuntime`).
"""

import asyncio
import os
from collections.abc import Sequence
from io import FileIO
from pathlib import Path
from typing import Any, BinaryIO

PAUSE = 0.5
"""Seconds between two looks at a file."""
APPEARS_SECONDS = 20.0
"""How long the file of a container that was started may not be there yet."""


class NodeLogs:
    """Logs in folders of this machine.

    Args:
        folders: `/var/log/pods` of each node.
    """

    def __init__(self, folders: Sequence[Path]) -> None:
        self._folders = folders

    async def copy(self, pod: dict[str, Any], container: dict[str, Any], target: Path) -> bool:
        """Copy what a container writes, until its pod is gone.

        Args:
            pod: the object.
            container: its entry among the pod's container statuses.
            target: appended to.

        Returns:
            Whether its log was found.
        """
        metadata = pod["metadata"]
        inside = f"{metadata['namespace']}_{metadata['name']}_{metadata['uid']}/{container['name']}"
        name = f"{inside}/{container.get('restartCount', 0)}.log"
        if (source := await self._found(name)) is None:
            return False
        with target.open("ab", buffering=0) as log:
            while source.parent.exists():
                try:
                    with source.open("rb") as lines:
                        await _copy(source, lines, log)
                except FileNotFoundError:  # put aside for having grown too large, and the next is not there yet
                    await asyncio.sleep(PAUSE)
        return True

    async def _found(self, name: str) -> Path | None:
        for _ in range(int(APPEARS_SECONDS / PAUSE)):
            for folder in self._folders:
                if (folder / name).exists():
                    return folder / name
            await asyncio.sleep(PAUSE)
        return None


async def _copy(source: Path, lines: BinaryIO, log: FileIO) -> None:
    """Copy until the file is another one (it grew too large) or gone, and all that was in it is read."""
    rest = b""
    while True:
        is_current = _is(source, lines)
        *whole, rest = (rest + lines.read()).split(b"\n")
        if whole:
            log.write(b"".join(map(_written, whole)))
        if not is_current:
            return
        await asyncio.sleep(PAUSE)


def _is(path: Path, opened: BinaryIO) -> bool:
    try:
        return os.path.samestat(path.stat(), os.fstat(opened.fileno()))
    except OSError:
        return False


def _written(line: bytes) -> bytes:
    """What a container wrote, out of a line of its log."""
    _time, _stream, kind, text = (line.split(b" ", 3) + [b""] * 4)[:4]
    return text if kind == b"P" else text + b"\n"
