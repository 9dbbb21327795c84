"""Runs in the Job: pytest, ended gently when the pod is, and a mark when it has ended.

Its arguments are the folder of the results, and pytest's. Its exit code is pytest's.
"""

import signal
import subprocess
import sys
from pathlib import Path
from types import FrameType

from inferencebox import command_line

ENDED = ".ended"
"""In the folder of the results: nothing more will be written there."""


def main() -> int:
    folder, *arguments = sys.argv[1:]
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # who starts us in the background has it ignored, and so would pytest
    running = subprocess.Popen(command_line.pytest(*arguments))

    def interrupt(_number: int, _frame: FrameType | None) -> None:
        running.send_signal(signal.SIGINT)  # as Ctrl-C does: tests are cleared up behind, the Lease is given back

    signal.signal(signal.SIGTERM, interrupt)
    try:
        return running.wait()
    finally:
        (Path(folder) / ENDED).touch()


if __name__ == "__main__":
    sys.exit(main())
