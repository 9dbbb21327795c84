"""The local provider's own logic, without a platform: addresses, launchers, records, capture rules, dead boxes."""

import json
import os
import subprocess
from pathlib import Path
from unittest.mock import Mock

import pytest

from inferencebox.errors import SetupProblem
from inferencebox.platform import Endpoint, Workload, WorkloadSpec
from inferencebox.providers import attach, close_platform, open_platform
from inferencebox.providers.local import box, network, plumber, workloads
from inferencebox.providers.local.state import Record, RecordFile
from inferencebox.providers.local.supervisor import Program, Supervisor, write_config
from inferencebox.providers.options import PlatformOptions


@pytest.fixture
def state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The state folder of an instance, in a place whose name has a space."""
    monkeypatch.setenv("IBOX_STATE", str(tmp_path / "a state"))
    folder = tmp_path / "a state" / "test"
    folder.mkdir(parents=True)
    return folder


def test_each_replica_gets_an_address_that_is_free() -> None:
    specs = [WorkloadSpec("tenant-a", f"m-{n}", "m") for n in range(3)]
    placed = workloads.place(specs, taken=["10.99.1.2"])
    assert [workload.address for workload in placed] == ["10.99.1.1", "10.99.1.3", "10.99.1.4"]


def test_a_replica_of_the_mesh_says_so_in_its_labels() -> None:
    inside, outside = workloads.place([WorkloadSpec("a", "in", "m"), WorkloadSpec("a", "out", "m", mesh=False)], [])
    assert inside.labels["security.istio.io/tlsMode"] == "istio"
    assert "security.istio.io/tlsMode" not in outside.labels


def test_a_program_that_nobody_knows_is_named() -> None:
    spec = WorkloadSpec("a", "m", "m", program="nonsense")
    with pytest.raises(SetupProblem, match="no program 'nonsense'"):
        workloads.program(spec, workloads.place([spec], [])[0], Path("/models"))


def test_a_client_runs_nothing() -> None:
    spec = WorkloadSpec("a", "c", "c", program="client")
    assert workloads.program(spec, workloads.place([spec], [])[0], Path("/models")) is None


def test_the_request_for_networks_carries_what_is_captured() -> None:
    message = json.loads(network.request("add", [network.Pod("a.m", "10.99.1.1", captured=True)], "/bin/iptables"))
    assert message["pods"] == [{"name": "a.m", "address": "10.99.1.1", "captured": True}]


def test_an_ip_address_always_has_the_same_hardware_address() -> None:
    """Else neighbours that remember an earlier pod's would send to nobody, for half a minute."""
    cables = [plumber.cable_end(network.Pod(name, "10.99.1.11")) for name in ("a.earlier", "b.later")]
    assert [cable["address"] for cable in cables] == ["02:00:0a:63:01:0b"] * 2


def test_a_launcher_runs_what_it_was_told_whatever_the_words_are(state: Path) -> None:
    write_config(state)
    odd = """it's "odd" $HOME 100% {json: 1}"""
    program = Program(
        "p", ["/bin/sh", "-c", 'printf "%s|%s|%s" "$ODD" "$1" "$PWD"', "-", odd], env={"ODD": odd}, cwd=state
    )
    script = state / "p.sh"
    script.write_text(Supervisor(state)._script(program))
    subprocess.run(["/bin/sh", str(script)], check=True)
    assert Supervisor(state).log("p").read_text() == f"{odd}|{odd}|{state}"


@pytest.mark.parametrize(("words", "fix"), [("too many open files", "max_user_instances"), ("bind: in use", "p.log")])
def test_a_program_that_does_not_stay_up_is_told_with_its_last_words_and_what_to_do(
    state: Path, words: str, fix: str
) -> None:
    supervisor = Supervisor(state)
    supervisor._rpc = Mock()
    supervisor._rpc.getProcessInfo.return_value = {"statename": "BACKOFF"}
    supervisor.log("p").parent.mkdir()
    supervisor.log("p").write_text(f"starting\nerror: {words}\n")
    with pytest.raises(SetupProblem, match=rf"p does not stay up: error: {words}.*{fix}"):
        supervisor.require_running("p")


def test_a_proxy_is_told_what_its_replica_runs() -> None:
    (client,) = workloads.place([WorkloadSpec("a", "c", "c", program="client")], [])
    assert client.labels["inference-in-a-box/workload"] == "client"


def test_a_record_is_read_as_it_was_written(state: Path) -> None:
    record = Record(
        release="r",
        endpoints={"gateway": Endpoint("http", "localhost", 8080)},
        capabilities={"mesh": None, "pods": "no kubelet"},
        workloads=[Workload("a", "m", "m", "v1", "10.99.1.1", {"app": "m"})],
    )
    RecordFile(state).write(record)
    assert RecordFile(state).read() == record


def test_changes_of_a_record_are_kept(state: Path) -> None:
    file = RecordFile(state)
    file.write(Record(release="r"))
    file.change(lambda record: record.layers.update(box=1.5))
    assert file.read().layers == {"box": 1.5}


def test_a_box_whose_process_is_gone_is_not_found(state: Path) -> None:
    ended = subprocess.Popen(["true"])
    ended.wait()
    (state / "box.json").write_text(json.dumps({"pid": ended.pid, "started": "1"}))
    assert box.find(state) is None


def test_another_process_with_a_box_s_number_is_not_taken_for_it(state: Path) -> None:
    (state / "box.json").write_text(json.dumps({"pid": os.getpid(), "started": "1"}))
    assert box.find(state) is None


def test_socket_paths_are_short_wherever_the_state_is() -> None:
    path = box.sockets_dir(Path("/home/" + "very-long-name/" * 20)) / "supervisor.sock"
    assert len(str(path)) < 100


def test_attaching_to_nothing_says_what_to_do(state: Path) -> None:
    with pytest.raises(SetupProblem, match="run `ibox up`"):
        attach("test")


def test_taking_down_what_is_not_up_does_nothing(state: Path) -> None:
    close_platform("test")
    assert not state.exists()


def test_what_a_killed_run_left_behind_is_cleared(state: Path) -> None:
    (state / "root").mkdir()
    (state / "platform.json").write_text("{}")
    (state / "hosts").symlink_to("/nonexistent")
    close_platform("test")
    assert not state.exists()


def test_logs_are_kept_when_asked_for(state: Path) -> None:
    (state / "logs").mkdir()
    (state / "logs" / "istiod.log").write_text("why")
    close_platform("test", keep_logs=True)
    assert (state / "logs" / "istiod.log").read_text() == "why"


def test_a_provider_that_nobody_knows_is_named(state: Path) -> None:
    with pytest.raises(SetupProblem, match="there is no provider 'moon'"):
        open_platform("moon", "test", "2026.11", PlatformOptions())
