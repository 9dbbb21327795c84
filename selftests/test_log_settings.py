"""Where logs go: what Loki and its collector are told, held against the programs themselves where they are built."""

import contextlib
import json
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from loopback import Server, closed_port, reply, serving

from inferencebox import policies
from inferencebox.manifests import load
from inferencebox.paths import manifests_dir
from inferencebox.polling import poll
from inferencebox.probes.loki import lines_of
from inferencebox.programs import are_there, provide
from inferencebox.programs.progress import Silent
from inferencebox.providers.local.logs import Logs
from inferencebox.providers.options import LOG_PROGRAMS
from inferencebox.release import DEFAULT_RELEASE, Release

FOLDER = manifests_dir() / "observability"
SECRETS = re.compile(r"authorization|api-?key|cookie|body", re.IGNORECASE)


@pytest.fixture(scope="module")
def binaries() -> dict[str, Path]:
    release = Release.load(DEFAULT_RELEASE)
    if not are_there(release, LOG_PROGRAMS):
        pytest.skip("Loki is not built on this machine, and building it takes minutes (ibox build loki log-collector)")
    return provide(release, LOG_PROGRAMS, Silent())


@pytest.fixture
def home(tmp_path: Path) -> Path:
    sources = tmp_path / "sources"
    nowhere = {name: Path("/bin/true") for name in LOG_PROGRAMS}
    Logs(tmp_path / "home", sources, tmp_path / "targets", nowhere).prepare()
    return tmp_path / "home"


def test_loki_and_the_collector_take_what_local_writes(binaries: dict[str, Path], home: Path) -> None:
    for command in (
        [binaries["loki"], f"-config.file={home / 'loki.yaml'}", "-verify-config"],
        [binaries["log-collector"], "validate", f"--config=file:{home / 'log-collector.yaml'}"],
    ):
        done = subprocess.run(command, capture_output=True, text=True, cwd=home, check=False)
        assert done.returncode == 0, done.stdout + done.stderr


def test_each_tenant_has_a_pipeline_a_store_and_a_door_of_its_own(home: Path) -> None:
    names = {each["tenant"] for each in policies.tenants()}
    told = yaml.safe_load((home / "log-collector.yaml").read_text())
    stores = {exporter["headers"]["X-Scope-OrgID"] for exporter in told["exporters"].values()}
    assert stores == {*names, "platform"}
    ways = {(each["condition"], tuple(each["pipelines"])) for each in told["connectors"]["routing"]["table"]}
    assert ways == {(f'attributes["tenant"] == "{name}"', (f"logs/{name}",)) for name in names}
    for name in names:
        pipeline = told["service"]["pipelines"][f"logs/{name}"]
        assert pipeline == {"receivers": ["routing"], "exporters": [f"otlp_http/{name}"]}
    assert doors() == {(name, name) for name in names}


def doors() -> set[tuple[str, str]]:
    """Tenants' viewers at tier 1: whose token leads to whose logs."""
    (route,) = (each for each in load(FOLDER / "viewers.yaml") if each["kind"] == "HTTPRoute")
    found = set()
    for rule in route["spec"]["rules"]:
        for match in rule["matches"]:
            who = {header["name"]: header["value"] for header in match.get("headers", ())}
            for each in rule["filters"]:
                for header in each.get("requestHeaderModifier", {}).get("set", ()):
                    found.add((who["x-tenant"], header["value"]))
    return found


def test_access_logs_name_no_header_that_may_hold_a_secret_and_no_query() -> None:
    texts = [
        *(FOLDER.parent / "gateway" / "proxy").glob("*.yaml"),
        FOLDER.parent / "mesh" / "proxies" / "access-log.yaml",
    ]
    formats = [value for path in texts for value in re.findall(r'"(%[^"]+%)"', path.read_text())]
    assert len(formats) > 30
    assert not [value for value in formats if SECRETS.search(value)]
    assert not [value for value in formats if ":PATH" in value and "WITHOUT_QUERY" not in value]


def test_lines_of_several_streams_are_in_order_of_time() -> None:
    streams = [
        {"stream": {"tenant": "tenant-a"}, "values": [["3000000000", "third"], ["1000000000", "first"]]},
        {"stream": {}, "values": [["2000000000", '{"status": 200}']]},
    ]
    found = lines_of({"data": {"result": streams}})
    assert [line.text for line in found] == ["first", '{"status": 200}', "third"]
    assert [line.fields for line in found] == [{}, {"status": 200}, {}]
    assert [line.at for line in found] == [1, 2, 3]


class Node:
    """The log files of a cluster's node, and the collector as it runs there, but for where it brings lines to."""

    def __init__(self, home: Path, program: Path, store: Server) -> None:
        self.home, self._store = home, store
        text = policies.log_collector("kubernetes", str(home / "noted"), store.endpoint.url)
        told = yaml.safe_load(text.replace("/var/log", str(home)))
        for exporter in told["exporters"].values():
            exporter |= {"encoding": "json", "compression": "none"}
        told["extensions"]["health_check"]["endpoint"] = f"127.0.0.1:{closed_port().port}"
        told["service"]["telemetry"]["metrics"] = {"level": "none"}
        self._told = home / "collector.yaml"
        self._told.write_text(json.dumps(told))
        self._command = [program, f"--config=file:{self._told}"]

    def write(self, pod: str, container: str, *lines: str) -> None:
        """As a container's runtime writes them down."""
        self.write_plain(f"pods/{pod}_9b2e/{container}/0.log", *(f"2026-11-21T10:00:00.5Z {line}" for line in lines))

    def write_plain(self, path: str, *lines: str) -> None:
        file = self.home / path
        file.parent.mkdir(parents=True, exist_ok=True)
        with file.open("a") as log:
            log.write("".join(f"{line}\n" for line in lines))

    @contextlib.contextmanager
    def collecting(self) -> Iterator[None]:
        with (self.home / "said").open("ab") as said:
            collector = subprocess.Popen(self._command, stdout=said, stderr=said)
        try:
            yield
        finally:
            collector.terminate()
            collector.wait(20)

    def brought(self, organisation: str, count: int) -> list[tuple[dict[str, str], Any]]:
        """Labels and text of the lines that an organisation has been brought, once there are so many."""
        assert poll(lambda: len(self._lines(organisation)) >= count, 20, every=0.1), (self.home / "said").read_text()
        return self._lines(organisation)

    def _lines(self, organisation: str) -> list[tuple[dict[str, str], Any]]:
        found = []
        for request in list(self._store.requests):
            head, _, body = request.partition(b"\r\n\r\n")
            if f"x-scope-orgid: {organisation}\r\n" in f"{head.decode().lower()}\r\n":
                found += [line for resource in json.loads(body)["resourceLogs"] for line in lines_in(resource)]
        return found


def lines_in(resource: dict[str, Any]) -> list[tuple[dict[str, str], Any]]:
    labels = {each["key"]: each["value"]["stringValue"] for each in resource["resource"].get("attributes", [])}
    records = [record for scope in resource["scopeLogs"] for record in scope["logRecords"]]
    assert not [record for record in records if record.get("attributes")], "a line has more to it than its text"
    return [(labels, plain(record["body"])) for record in records]


def plain(value: dict[str, Any]) -> Any:
    if "kvlistValue" in value:
        return {each["key"]: plain(each["value"]) for each in value["kvlistValue"]["values"]}
    return value.get("stringValue", value)


@pytest.fixture
def node(tmp_path: Path, binaries: dict[str, Path]) -> Iterator[Node]:
    with serving(reply(200, b"{}", content_type="application/json")) as store:
        yield Node(tmp_path, binaries["log-collector"], store)


def test_on_a_node_the_collector_finds_lines_in_what_the_runtime_makes_of_them(node: Node) -> None:
    where = {"route": "httproute/tenant-a/sklearn-iris/rule/0", "path": "/v1/models/sklearn-iris:predict"}
    line = json.dumps({"time": "2026-11-21T10:00:00.123Z", "tenant": "tenant-a", **where})
    node.write("envoy-gateway-system_envoy-1", "envoy", "stderr F [warning] no entry", f"stdout F {line}")
    node.write("tenant-a_iris-1", "kserve-container", "stdout P first half,", "stdout F  second half")
    node.write("tenant-a_iris-1", "istio-proxy", "stdout F not the model's")
    node.write("tenant-a_iris-1", "queue-proxy", "stdout F not the model's either")
    with node.collecting():
        everything, own = (dict_of(node.brought(name, 2)) for name in ("platform", "tenant-a"))
    assert everything == own
    assert everything["audit", "tier-1"][0]["model"] == "sklearn-iris"
    assert everything["model", "iris-1"] == ["first half, second half"]


def test_on_a_control_planes_node_it_reads_the_audit_of_the_api_server(node: Node) -> None:
    entry = {"verb": "create", "stageTimestamp": "2026-11-21T10:00:00.123456Z"}
    node.write_plain(policies.kubernetes_audit_log().removeprefix("/var/log/"), json.dumps(entry))
    with node.collecting():
        assert dict_of(node.brought("platform", 1)) == {("audit", "kubernetes"): [entry]}


def test_started_again_it_goes_on_where_it_was(node: Node) -> None:
    for text in ("before", "after"):
        node.write("tenant-a_iris-1", "model", f"stdout F {text}")
        with node.collecting():
            lines = node.brought("platform", 1 if text == "before" else 2)
    assert [line for _, line in lines] == ["before", "after"]


def dict_of(lines: list[tuple[dict[str, str], Any]]) -> dict[tuple[str, str], list[Any]]:
    found: dict[tuple[str, str], list[Any]] = {}
    for labels, text in lines:
        found.setdefault((labels["log"], labels["source"]), []).append(text)
    return found
