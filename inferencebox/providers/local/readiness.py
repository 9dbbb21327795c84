"""Waits until parts of the box answer."""

import ssl
from collections.abc import Callable
from pathlib import Path

import httpx

from inferencebox.errors import SetupProblem
from inferencebox.polling import poll

from .door import Door
from .supervisor import Supervisor

INTERVAL_SECONDS = 0.05
DEFAULT_SECONDS = 60.0


class Readiness:
    """Asks programs of the box whether they are ready, through the door.

    Args:
        door: the way in.
        supervisor: to notice at once when a program does not stay up.
    """

    def __init__(self, door: Door, supervisor: Supervisor) -> None:
        self._door, self._supervisor = door, supervisor
        self._client = httpx.Client(trust_env=False, timeout=5)

    def http(
        self,
        program: str,
        address: str,
        port: int,
        path: str,
        pod: str = "",
        seconds: float = DEFAULT_SECONDS,
    ) -> None:
        """Wait until ``path`` answers 200."""
        url = f"http://127.0.0.1:{self._door.forward(address, port, pod)}{path}"
        self.until(lambda: self._answers(self._client, url), f"{program} {path}", program, seconds)

    def kubernetes(self, url: str, authority: Path, certificate: Path, key: Path) -> None:
        context = ssl.create_default_context(cafile=str(authority))
        context.load_cert_chain(certificate, key)
        with httpx.Client(trust_env=False, verify=context, timeout=5) as client:
            self.until(lambda: self._answers(client, f"{url}/readyz"), "kube-apiserver /readyz", "kube-apiserver")

    def until(self, done: Callable[[], bool], what: str, program: str = "", seconds: float = DEFAULT_SECONDS) -> None:
        """Wait for a condition; a program that keeps ending is reported with its last words."""

        def done_or_dead() -> bool:
            if done():
                return True
            if program:
                self._supervisor.require_running(program)
            return False

        if not poll(done_or_dead, seconds, INTERVAL_SECONDS):
            words = f"; last line of its log: {self._supervisor.last_words(program)}" if program else ""
            raise SetupProblem(
                f"{what} was not ready after {seconds:.0f} s{words}", "see the logs that `ibox status` names"
            )

    @staticmethod
    def _answers(client: httpx.Client, url: str) -> bool:
        try:
            return client.get(url).status_code == 200
        except httpx.TransportError:
            return False
