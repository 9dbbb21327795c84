"""Removes a Job when the process that runs it from outside is gone, however that ended.

Its arguments are that process, the kubeconfig, and the Job's name.
"""

import contextlib
import os
import select
import sys
from pathlib import Path

from inferencebox.job.running import remove
from inferencebox.probes.kubernetes import Kube


def main() -> None:
    owner, kubeconfig, name = sys.argv[1:]
    with contextlib.suppress(ProcessLookupError):
        select.select([os.pidfd_open(int(owner))], [], [])
    remove(Kube(Path(kubeconfig)), name)


if __name__ == "__main__":
    main()
