"""Logs of the box in one place: Loki, and a collector that reads the files that processes write, in telemetry's pod."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from inferencebox import policies

from .mesh import pod_name
from .supervisor import Program
from .telemetry import NICE, workload

PORT = 3100
AUDIT = "kubernetes-audit.log"
# how each part says that it is ready: port in the pod, path
HEALTH: Mapping[str, tuple[int, str]] = {"loki": (PORT, "/ready"), "log-collector": (13134, "/")}

METRICS: Mapping[str, int] = {"loki": PORT, "log-collector": 8889}


@dataclass(frozen=True)
class Logs:
    """Files and programs that keep logs.

    Args:
        home: folder of its own below the instance's state.
        sources: folder of the log files.
        targets: folder in which Prometheus is told what to scrape.
        binaries: program name -> path.
    """

    home: Path
    sources: Path
    targets: Path
    binaries: Mapping[str, Path]

    def prepare(self) -> None:
        """Configuration of both."""
        self.home.mkdir(parents=True, exist_ok=True)
        (self.home / "loki.yaml").write_text(policies.loki(str(self.home / "loki")))
        store, places = f"http://127.0.0.1:{PORT}", {"logs": str(self.sources)}
        told = policies.log_collector("local", str(self.home / "collector"), store, places)
        (self.home / "log-collector.yaml").write_text(told)
        self.targets.mkdir(parents=True, exist_ok=True)
        scraped = [{"targets": [f"127.0.0.1:{port}"], "labels": {"app": name}} for name, port in METRICS.items()]
        (self.targets / "logs.json").write_text(json.dumps(scraped))

    def programs(self) -> list[Program]:
        return [
            self._program("loki", f"-config.file={self.home / 'loki.yaml'}"),
            self._program("log-collector", f"--config=file:{self.home / 'log-collector.yaml'}"),
        ]

    def _program(self, name: str, *flags: str) -> Program:
        return Program(name, [*NICE, str(self.binaries[name]), *flags], pod=pod_name(workload()), cwd=self.home)
