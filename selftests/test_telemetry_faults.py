"""What telemetry does when something is wrong around it, seen at the real programs.

A sink that is away, a full disk, and a target whose clock is wrong.
"""

import contextlib
import json
import shlex
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml
from loopback import closed_port, reply, serving

from inferencebox.errors import SetupProblem
from inferencebox.pki import Authority
from inferencebox.platform import Endpoint
from inferencebox.polling import poll
from inferencebox.probes.prometheus import Prometheus
from inferencebox.programs import provide
from inferencebox.programs.progress import Silent
from inferencebox.providers.local.addresses import PODS
from inferencebox.providers.local.telemetry import PROGRAMS, SINK, Telemetry
from inferencebox.release import DEFAULT_RELEASE, Release

IN_A_NAMESPACE = ("unshare", "--map-root-user", "--mount")
FULL_AFTER_SECONDS = 3


@pytest.fixture(scope="module", autouse=True)
def _namespaces() -> None:
    if subprocess.run([*IN_A_NAMESPACE, "true"], check=False, capture_output=True).returncode:
        pytest.skip("no user namespaces on this machine (ibox doctor)")


@pytest.fixture(scope="module")
def binaries() -> Mapping[str, Path]:
    wanted = ("prometheus", "alertmanager")
    return {**dict.fromkeys(PROGRAMS, Path("/bin/true")), **provide(Release.load(DEFAULT_RELEASE), wanted, Silent())}


@pytest.fixture
def telemetry(tmp_path: Path, binaries: Mapping[str, Path]) -> Telemetry:
    """With the configuration that `local` writes."""
    made = Telemetry(tmp_path / "telemetry", binaries)
    authority = Authority.create("test")
    made.prepare(authority.issue("prometheus"), authority.pair.certificate)
    return made


@contextlib.contextmanager
def running(command: Sequence[object], log: Path) -> Iterator[None]:
    with log.open("ab") as file:
        process = subprocess.Popen(list(map(str, command)), stdout=file, stderr=file)
    try:
        yield
    finally:
        process.terminate()
        process.wait(20)


def answers(endpoint: Endpoint, path: str) -> Callable[[], bool]:
    def ask() -> bool:
        with contextlib.suppress(httpx.HTTPError):
            return httpx.get(f"{endpoint.url}{path}", timeout=5, trust_env=False).is_success
        return False

    return ask


def until(there: Callable[[], object], seconds: float, log: Path) -> None:
    assert poll(there, seconds, 0.2), f"not within {seconds:.0f} s; its log ends: {log.read_text()[-2000:]}"


def test_what_was_to_be_told_while_a_sink_was_away_is_told_once_when_it_is_back(
    telemetry: Telemetry, tmp_path: Path
) -> None:
    web, mail, endpoint = closed_port(), closed_port(), closed_port()
    config, log = telemetry.home / "alertmanager.yaml", tmp_path / "alertmanager.log"
    sink = PODS[SINK]
    told = config.read_text().replace(f"{sink}:8080", f"127.0.0.1:{web.port}")
    config.write_text(told.replace(f"{sink}:1025", f"127.0.0.1:{mail.port}"))
    *enter, script = next(each.argv for each in telemetry.programs() if each.name == "alertmanager")
    manager = [*IN_A_NAMESPACE, *enter, f"{script} --web.listen-address=127.0.0.1:{endpoint.port}"]
    alert = {
        "labels": {"alertname": "Drilled", "severity": "warning", "drill": "true", "tenant": "t", "model": "m"},
        "annotations": {"summary": "about m"},
    }

    def failed() -> bool:
        """As Alertmanager counts it; both ways."""
        lines = httpx.get(f"{endpoint.url}/metrics", timeout=5, trust_env=False).text.splitlines()
        counts = [line for line in lines if line.startswith("alertmanager_notification_requests_failed_total")]
        return all(any(way in line and not line.endswith(" 0") for line in counts) for way in ('"slack"', '"email"'))

    def notified() -> list[str]:
        found = httpx.get(f"{web.url}/notifications", params={"contains": "m"}, timeout=5, trust_env=False).json()
        return sorted(each["channel"] for each in found)

    with running(manager, log):
        until(answers(endpoint, "/-/ready"), 30, log)
        httpx.post(f"{endpoint.url}/api/v2/alerts", json=[alert], timeout=5, trust_env=False).raise_for_status()
        until(failed, 40, log)
        assert "connection refused" in log.read_text()
        both = [Path(sys.executable).parent / "alert-sink", "--host=127.0.0.1", f"--port={web.port}"]
        with running([*both, f"--smtp-port={mail.port}"], log):
            until(answers(web, "/health"), 20, log)
            until(lambda: notified() == ["email", "slack"], 40, log)
            time.sleep(7)  # longer than the drill's group_interval: time to tell it again
            assert notified() == ["email", "slack"]


def test_a_full_disk_is_named_though_prometheus_calls_itself_ready(telemetry: Telemetry, tmp_path: Path) -> None:
    """Prometheus goes on, says that it and its targets are well, and keeps nothing: whoever asks has to be told."""
    endpoint, data, log = closed_port(), tmp_path / "data", tmp_path / "prometheus.log"
    data.mkdir()
    config = tmp_path / "own.yaml"
    config.write_text(json.dumps(scraping("self", f"127.0.0.1:{endpoint.port}", {})))
    prometheus = shlex.join([*map(str, command(telemetry, config, data, endpoint))])
    filling = f"(sleep {FULL_AFTER_SECONDS}; dd if=/dev/zero of={shlex.quote(str(data))}/filler bs=4k; true) &"
    script = f"mount -t tmpfs -o size=2m tmpfs {shlex.quote(str(data))} && {{ {filling} exec {prometheus}; }}"
    with running([*IN_A_NAMESPACE, "sh", "-c", script], log):
        until(answers(endpoint, "/-/ready"), 20, log)
        probe = Prometheus(endpoint)
        probe.require_storing()
        until(lambda: "no space left on device" in log.read_text(), 20, log)
        assert answers(endpoint, "/-/ready")(), "not silent: then this need not be asked for"
        assert {target.health for target in probe.targets()} == {"up"}
        with pytest.raises(SetupProblem, match=r"cannot keep what it scrapes: [0-9]+ writes failed"):
            probe.require_storing()


@pytest.mark.parametrize(("shipped", "kept"), [(True, 1), (False, 0)])
def test_a_model_whose_clock_is_an_hour_ahead_keeps_its_metrics(
    telemetry: Telemetry, tmp_path: Path, shipped: bool, kept: int
) -> None:
    """As the shipped job is written; Prometheus' default would drop what is an hour ahead."""
    ahead = int((time.time() + 3600) * 1000)
    text = reply(200, f"request_predict_seconds_count 5 {ahead}\n".encode(), content_type="text/plain; version=0.0.4")
    endpoint, data, log = closed_port(), tmp_path / "data", tmp_path / "prometheus.log"
    jobs = yaml.safe_load((telemetry.home / "prometheus.yaml").read_text())["scrape_configs"]
    job = next(each for each in jobs if each["job_name"] == "kserve-model")
    config = tmp_path / "own.yaml"
    with serving(text) as target:
        own = {"honor_timestamps": job["honor_timestamps"]} if shipped else {}
        config.write_text(json.dumps(scraping("kserve-model", f"127.0.0.1:{target.port}", own)))
        with running(command(telemetry, config, data, endpoint), log):
            probe = Prometheus(endpoint)
            until(answers(endpoint, "/-/ready"), 20, log)
            until(lambda: probe.query('up{job="kserve-model"} == 1').series, 20, log)
            assert len(probe.query("request_predict_seconds_count").series) == kept


def scraping(job: str, target: str, more: Mapping[str, Any]) -> dict[str, Any]:
    """A configuration with one target, asked every second."""
    every = {"scrape_interval": "1s", "scrape_timeout": "1s"}
    return {"scrape_configs": [{"job_name": job, **every, **more, "static_configs": [{"targets": [target]}]}]}


def command(telemetry: Telemetry, config: Path, data: Path, endpoint: Endpoint) -> list[object]:
    flags = [f"--config.file={config}", f"--storage.tsdb.path={data}"]
    return [telemetry.binaries["prometheus"], *flags, f"--web.listen-address=127.0.0.1:{endpoint.port}"]
