"""How busy this machine's processors are."""

import os
from pathlib import Path

CPU = Path("/proc/pressure/cpu")
SECONDS = 10.0
"""For so long something has to be going on before what the kernel says is about that, too."""
FULL = 70.0
"""Per cent of these seconds in which something waited for a processor. Two cores beside scenarios on Kind said
90 when nothing of them was idle, 70 when a sixth was, 45 when it was two fifths."""


def cores() -> int:
    """Processors of this machine."""
    return os.cpu_count() or 1


def has_room(file: Path = CPU) -> bool:
    """Whether the processors can take more work; also where the kernel does not say how busy they are.

    Args:
        file: what the kernel says (https://docs.kernel.org/accounting/psi.html).
    """
    try:
        some = file.read_text().splitlines()[0]
    except OSError:
        return True
    return float(dict(field.split("=") for field in some.split()[1:])["avg10"]) < FULL
