"""Small shell programs that start another with the libraries it was packed with."""

import shlex
import sysconfig
from collections.abc import Mapping, Sequence
from pathlib import Path

ROOT = "@ROOT@"
TRIPLET = "@TRIPLET@"
TEMPLATE = """#!/bin/sh
here=$(dirname "$(readlink -f "$0")")
{exports}exec {command} "$@"
"""


def write_launcher(target: Path, root: str, command: Sequence[str], environment: Mapping[str, str]) -> None:
    """Write a launcher.

    Args:
        target: the launcher's path.
        root: where the packages are unpacked, relative to the launcher's folder.
        command: program below the root, then arguments that come before the caller's.
        environment: variables to set; ``@ROOT@`` stands for the root, ``@TRIPLET@`` for Debian's name of this machine.
    """
    base = f'"$here"/{root}'
    exports = "".join(f"export {name}={_quoted(value, base)}\n" for name, value in environment.items())
    program, *arguments = command
    words = " ".join([f"{base}/{shlex.quote(program)}", *(shlex.quote(word) for word in arguments)])
    target.write_text(TEMPLATE.format(exports=exports, command=words))
    target.chmod(0o755)


def triplet() -> str:
    """What Debian calls the folder of this machine's libraries."""
    return str(sysconfig.get_config_var("MULTIARCH"))


def _quoted(value: str, base: str) -> str:
    parts = value.replace(TRIPLET, triplet()).split(ROOT)
    return base.join(shlex.quote(part) if part else "" for part in parts)
