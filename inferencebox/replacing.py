"""Files that others read while they are written: whole or not at all."""

import os
from pathlib import Path


def replace_file(path: Path, content: str | bytes) -> None:
    """Put content in the place of whatever the file held; who reads it meanwhile sees the old or the new, never a part.

    Args:
        path: in a folder that is there.
        content: text is written as UTF-8.

    Raises:
        OSError: it could not be written; what was there still is.
    """
    part = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        part.write_bytes(content.encode() if isinstance(content, str) else content)
        part.replace(path)
    except OSError:
        part.unlink(missing_ok=True)
        raise
