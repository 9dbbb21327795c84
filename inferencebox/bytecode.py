"""Keeps compiled modules, also where Python is told to write none beside the sources (as images and CI often do).

The platform and its tests start some two hundred Pythons. Compiling the same modules in each of them takes about half
of all the CPU time of a demo.
"""

import os
import sys
from pathlib import Path

FORBIDDEN = "PYTHONDONTWRITEBYTECODE"
ELSEWHERE = "PYTHONPYCACHEPREFIX"


def keep_compiled() -> None:
    """From now on, here and in child processes, compiled modules go to a folder of the virtual environment.

    Nothing changes where Python writes them anyway, or where there is no virtual environment of ours.
    """
    if not sys.dont_write_bytecode or sys.prefix == sys.base_prefix:
        return
    sys.pycache_prefix = sys.pycache_prefix or str(Path(sys.prefix) / "compiled")
    sys.dont_write_bytecode = False
    os.environ[ELSEWHERE] = sys.pycache_prefix
    os.environ.pop(FORBIDDEN, None)
