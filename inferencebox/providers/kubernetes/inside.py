"""Commands inside pods: where they run, and whether all that they wrote came out.

`kubectl exec` ends with 0 and without a word when it loses its connection (kubernetes/kubernetes, pull request 137404),
and may keep the end of what was written to itself (issue 124571). So what came whole ends with a mark, which says how
the command ended.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from subprocess import CompletedProcess

MARK = "\n--inferencebox-end-"
SCRIPT = '"$@"; code=$?; printf "%s%s" "$0" "$code"'


@dataclass(frozen=True)
class Place:
    """Where a command runs.

    Args:
        container: of the pod; empty: its first.
    """

    namespace: str
    pod: str
    container: str = ""

    def __str__(self) -> str:
        return f"{self.namespace}/{self.pod}"

    @property
    def flags(self) -> list[str]:
        """As kubectl is told it."""
        return ["-n", self.namespace, self.pod, *(["-c", self.container] if self.container else [])]


def marked(argv: Sequence[str]) -> list[str]:
    """The same command, with the mark after all that it writes. For containers with a shell."""
    return ["sh", "-c", SCRIPT, MARK, *argv]


def whole(done: CompletedProcess[bytes]) -> CompletedProcess[bytes] | None:
    """What the command wrote and how it ended; none if some of it was lost. kubectl's own failures stay as they are."""
    written, mark, code = done.stdout.rpartition(MARK.encode())
    if mark and code.isdigit():
        return CompletedProcess(done.args, int(code), written, done.stderr)
    return done if done.returncode else None
