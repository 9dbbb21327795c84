"""Where logs go: what Loki and its collector are told, held against the programs themselves where they are built."""

import re
import subprocess
from pathlib import Path

import pytest
import yaml

from inferencebox import policies
from inferencebox.manifests import load
from inferencebox.paths import manifests_dir
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
        FOLDER.parent / "mesh" / "logs" / "access-log.yaml",
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
