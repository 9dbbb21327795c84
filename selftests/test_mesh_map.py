"""The map of the mesh: what Kiali asks Prometheus is there, with every label without which it leaves a request out."""

import contextlib
import json
import subprocess
from collections.abc import Iterator

import pytest
import yaml
from loopback import closed_port, reply, serving

from inferencebox import policies
from inferencebox.errors import SetupProblem
from inferencebox.polling import poll
from inferencebox.probes.prometheus import Prometheus
from inferencebox.programs import provide
from inferencebox.programs.progress import Silent
from inferencebox.release import DEFAULT_RELEASE, Release

# Kiali 2.11: graph/telemetry/istio/istio.go (its second query, and what it skips), appender/security_policy.go
CALLER = ("source_workload_namespace", "source_workload", "source_canonical_service", "source_canonical_revision")
CALLED = (
    "destination_service_namespace", "destination_service", "destination_service_name",
    "destination_workload_namespace", "destination_workload", "destination_canonical_service",
    "destination_canonical_revision",
)  # fmt: skip
REQUEST = ("request_protocol", "response_code", "response_flags")
LOCK = ("source_principal", "destination_principal", "connection_security_policy")
ASKED = 'istio_requests_total{reporter=~"destination|waypoint",destination_workload_namespace="tenant-a"}'
MAP = f"sum({ASKED}) by ({','.join((*CALLER, *CALLED, *REQUEST, *LOCK))})"
COUNTED = 'envoy_istio_requests_total{{reporter="{}",response_code="200",response_flags="-",{}}} {}\n'
GENUINE = (
    'source_principal="spiffe://cluster.local/ns/istio-system/sa/gate",destination_principal="m",tls_version="TLSv1.3"'
)
STRANGER = 'source_principal="",destination_principal="",tls_version="-"'
ONWARD = 'destination="outbound|8080||other.tenant-b.svc.cluster.local",destination_principal="o",tls_version="TLSv1.3"'
LABELS = {"namespace": "tenant-a", "app": "iris", "pod": "iris-1", "tenant": "tenant-a", "version": "v1"}


@pytest.fixture(scope="module")
def prometheus(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Prometheus]:
    """One that scrapes a sidecar of a model by the shipped job."""
    home, endpoint = tmp_path_factory.mktemp("prometheus"), closed_port()
    counted = [("destination", GENUINE, 7), ("destination", STRANGER, 2), ("source", ONWARD, 9)]
    page = "".join(COUNTED.format(*each) for each in counted).encode()
    program = provide(Release.load(DEFAULT_RELEASE), ["prometheus"], Silent())["prometheus"]
    with serving(reply(200, page, content_type="text/plain; version=0.0.4")) as sidecar:
        config = {"scrape_configs": [job("mesh", f"127.0.0.1:{sidecar.port}")]}
        (home / "own.yaml").write_text(json.dumps(config))
        flags = [f"--config.file={home}/own.yaml", f"--storage.tsdb.path={home}/data"]
        process = subprocess.Popen(
            [program, *flags, f"--web.listen-address=127.0.0.1:{endpoint.port}"], stderr=(home / "log").open("wb")
        )
        try:
            found = Prometheus(endpoint)
            assert poll(lambda: has_scraped(found), 30, every=0.2), (home / "log").read_text()
            yield found
        finally:
            process.terminate()
            process.wait(20)


def job(name: str, target: str) -> dict[str, object]:
    """A shipped job, of one target that is asked every second."""
    values = {"scrape_interval": "1s", "rules": "[]", "certificates": "", "alertmanager": ""}
    places = dict.fromkeys(("targets", "certificates"), "")
    shipped = yaml.safe_load(policies.prometheus("kubernetes", places, values))["scrape_configs"]
    rules = next(each["metric_relabel_configs"] for each in shipped if each["job_name"] == name)
    found = {"static_configs": [{"targets": [target], "labels": LABELS}]}
    return {"job_name": name, "scrape_interval": "1s", "scrape_timeout": "1s", "metric_relabel_configs": rules, **found}


def has_scraped(prometheus: Prometheus) -> bool:
    with contextlib.suppress(SetupProblem):
        return bool(prometheus.query("istio_requests_total").series)
    return False


def seen(prometheus: Prometheus, query: str) -> list[tuple[dict[str, str], float]]:
    return [(dict(labels), value) for labels, value in prometheus.query(query).series.items()]


def test_a_request_is_on_the_map_with_who_asked_whom_and_a_lock(prometheus: Prometheus) -> None:
    ((locked, value),) = [each for each in seen(prometheus, MAP) if each[0]["source_workload"] != "unknown"]
    assert {name for name in (*CALLER, *CALLED, *REQUEST, *LOCK) if not locked.get(name)} == set()
    told = [locked[name] for name in ("source_workload_namespace", "source_workload", "destination_service")]
    assert told == ["istio-system", "gate", "iris.tenant-a.svc.cluster.local"]
    assert locked["connection_security_policy"] == "mutual_tls"
    assert value == 7


def test_who_came_without_a_certificate_is_on_it_too_and_has_no_lock(prometheus: Prometheus) -> None:
    ((open_, value),) = [each for each in seen(prometheus, MAP) if each[0]["source_workload"] == "unknown"]
    assert {name for name in (*CALLER, *CALLED, *REQUEST) if not open_.get(name)} == set()
    assert "connection_security_policy" not in open_
    assert value == 2


def test_what_a_sidecar_sends_on_is_no_request_to_its_own_model(prometheus: Prometheus) -> None:
    ((sent, _),) = seen(prometheus, 'istio_requests_total{reporter="source"}')
    assert sent["destination_service_name"] == "other"
    assert "destination_workload" not in sent
