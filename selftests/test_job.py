"""The suite as a Job: what it consists of, and how its record comes here."""

import io
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any

import pytest
from loopback import Server, reply, serving
from small_api import SmallApi
from small_api import kubeconfig as config_file

from inferencebox import journal
from inferencebox.errors import SetupProblem
from inferencebox.job import results
from inferencebox.job.inside import ENDED
from inferencebox.job.objects import RESULTS, SUITE, account, binding_of, job
from inferencebox.job.running import SuiteJob, remove
from inferencebox.journal import Journal
from inferencebox.layers.labels import INSTANCE
from inferencebox.probes.kubernetes import Kube

SLOW_TEST = """
import time, pytest
@pytest.fixture
def own():
    open('began', 'w').close()
    yield
    open('cleared', 'w').close()
def test_it(own):
    time.sleep(60)
"""
LONG = "x" * (journal.INLINE_LIMIT + 1)


class TestObjects:
    def test_everything_of_it_is_removed_with_the_platform(self) -> None:
        for document in [*account("suite-1", "mine"), job("suite-1", "mine", "image", [])]:
            assert document["metadata"]["labels"][INSTANCE] == "mine"

    def test_the_suite_is_told_which_platform_and_whose_arguments(self) -> None:
        pod = job("n", "mine", "image", ["-k", "SEC-08"])["spec"]["template"]["spec"]
        containers = {each["name"]: each for each in pod["containers"]}
        words = containers[SUITE]["command"]
        assert words[words.index("--provider") + 1] == "cluster"
        assert words[words.index("--instance") + 1] == "mine"
        assert words[-2:] == ["-k", "SEC-08"]
        assert "inferencebox.job.results" in containers[RESULTS]["command"]

    def test_it_is_tried_once_and_goes_by_itself(self) -> None:
        spec = job("n", "mine", "image", [])["spec"]
        assert (spec["backoffLimit"], spec["template"]["spec"]["restartPolicy"]) == (0, "Never")
        assert spec["ttlSecondsAfterFinished"] <= 600


class TestRecord:
    def test_events_come_in_order_with_what_lies_beside_them(self, tmp_path: Path) -> None:
        written = Journal.create(tmp_path)
        written.write({"event": "run-started"})
        written.write({"event": "attachment", "mime": "text/plain", "body": LONG})
        (tmp_path / ENDED).touch()
        told = list(results.events(tmp_path))
        assert [each["event"] for each in told] == ["run-started", "attachment"]
        assert told[1]["body"] == LONG
        assert "file" not in told[1]

    def test_a_line_that_is_being_written_is_waited_for(self, tmp_path: Path) -> None:
        file = tmp_path / journal.RUN_FILE
        file.write_text('{"event": "run-started"}\n{"event": "ste')
        coming = results.events(tmp_path)
        assert next(coming) == {"event": "run-started"}
        with file.open("a") as record:
            record.write('p"}\n')
        (tmp_path / ENDED).touch()
        assert list(coming) == [{"event": "step"}]

    def test_each_is_printed_with_its_number(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        Journal.create(tmp_path).write({"event": "run-started"})
        (tmp_path / ENDED).touch()
        monkeypatch.setattr(sys, "argv", ["results", str(tmp_path)])
        monkeypatch.setattr(signal, "signal", lambda *_: None)
        with redirect_stdout(io.StringIO()) as printed:
            results.main()
        assert printed.getvalue() == '1 {"event":"run-started"}\n'


class TestInside:
    def test_its_exit_code_is_pytests_and_its_end_is_marked(self, tmp_path: Path) -> None:
        (tmp_path / "test_it.py").write_text("def test_it(): assert False")
        done = self.started(tmp_path, "-q", str(tmp_path)).wait(timeout=60)
        assert done == 1
        assert (tmp_path / ENDED).exists()

    @pytest.mark.parametrize("from_its_caller", [signal.SIG_DFL, signal.SIG_IGN])
    def test_told_to_end_it_ends_pytest_gently(self, tmp_path: Path, from_its_caller: signal.Handlers) -> None:
        (tmp_path / "test_it.py").write_text(SLOW_TEST)
        ours = signal.signal(signal.SIGINT, from_its_caller)
        running = self.started(tmp_path, "-q", str(tmp_path))
        signal.signal(signal.SIGINT, ours)
        deadline = time.monotonic() + 30
        while not (tmp_path / "began").exists() and time.monotonic() < deadline:
            time.sleep(0.02)
        running.terminate()
        assert running.wait(timeout=30) == pytest.ExitCode.INTERRUPTED
        assert (tmp_path / "cleared").exists()

    def started(self, folder: Path, *words: str) -> "subprocess.Popen[bytes]":
        quiet = ["-p", "no:cacheprovider", "-c", os.devnull, f"--rootdir={folder}"]
        command = [sys.executable, "-m", "inferencebox.job.inside", str(folder), *quiet, *words]
        return subprocess.Popen(command, cwd=folder, stdout=subprocess.DEVNULL)


class Cluster(SmallApi):
    """A cluster in which a Job gets a pod at once, with logs that are prepared."""

    def __init__(self) -> None:
        super().__init__()
        self.logs = {SUITE: "2 passed\n", RESULTS: '1 {"event":"run-started"}\n2 {"event":"run-finished"}\n'}
        self.states: dict[str, Any] = {"terminated": {"exitCode": 1}}

    def put(self, document: dict[str, Any], created: str = "") -> dict[str, Any]:
        if document["kind"] == "Job":
            metadata = {**document["spec"]["template"]["metadata"], "name": "pod", "namespace": "inferencebox"}
            statuses = [{"name": name, "state": self.states} for name in (SUITE, RESULTS)]
            status = {"phase": "Running", "containerStatuses": statuses}
            super().put({"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "status": status})
        return super().put(document, created)

    def __call__(self, request: bytes) -> bytes:
        target = request.split(b" ")[1].decode()
        for name, log in self.logs.items():
            if f"/log?container={name}&" in target:
                return reply(200, log.encode())
        return super().__call__(request)

    def _delete(self, path: str) -> None:
        if "/jobs/" in path:
            self.objects = {where: each for where, each in self.objects.items() if "/pods/" not in where}
        super()._delete(path)


class TestRunning:
    @pytest.fixture
    def api(self) -> Cluster:
        return Cluster()

    @pytest.fixture
    def server(self, api: Cluster) -> Iterator[Server]:
        with serving(api) as running:
            yield running

    def run(self, server: Server, tmp_path: Path, shown: list[str]) -> SuiteJob:
        file = config_file(server.endpoint, tmp_path)
        written = Journal.create(tmp_path / "reports")
        return SuiteJob(Kube(file), file, "mine", "image", ["tests"], shown.append, written)

    def test_its_exit_code_output_and_record_are_here_and_nothing_of_it_is_left_there(
        self, api: Cluster, server: Server, tmp_path: Path
    ) -> None:
        shown: list[str] = []
        running = self.run(server, tmp_path, shown)
        assert running.run() == 1
        assert shown == ["2 passed"]
        assert [each["event"] for each in journal.read(tmp_path / "reports")] == ["run-started", "run-finished"]
        assert api.objects == {}

    def test_events_that_got_lost_are_told(self, api: Cluster, server: Server, tmp_path: Path) -> None:
        api.logs[RESULTS] = '1 {"event":"run-started"}\n4 {"event":"step"}\n'
        with pytest.raises(SetupProblem, match="the record lacks events 2 to 3"):
            self.run(server, tmp_path, []).run()

    def test_one_that_cannot_be_started_is_told_with_its_events_and_removed(
        self, api: Cluster, server: Server, tmp_path: Path
    ) -> None:
        api.states = {"waiting": {"reason": "ImagePullBackOff"}}
        about = {"kind": "Pod", "name": "pod"}
        event = {"involvedObject": about, "type": "Warning", "reason": "Failed", "message": "no such image"}
        api.put({"apiVersion": "v1", "kind": "Event", "metadata": {"name": "e", "namespace": "inferencebox"}, **event})
        with pytest.raises(SetupProblem, match=r"did not start: pod pod: Failed: no such image"):
            self.run(server, tmp_path, []).run()
        assert api.names() == {"Event e"}

    def test_what_may_not_be_made_is_told(self, api: Cluster, server: Server, tmp_path: Path) -> None:
        api.refusals["POST", "clusterrolebindings"] = 403
        with pytest.raises(SetupProblem, match="the Job cannot be made: ClusterRoleBinding: 403 by rbac"):
            self.run(server, tmp_path, []).run()
        assert api.objects == {}

    def test_when_its_runner_is_killed_the_job_is_removed(self, api: Cluster, server: Server, tmp_path: Path) -> None:
        kube = Kube(config_file(server.endpoint, tmp_path))
        for document in [*account("suite-1", "mine"), job("suite-1", "mine", "image", [])]:
            kube.create(document).require()
        assert f"ClusterRoleBinding {binding_of('suite-1')}" in api.names()
        owner = subprocess.Popen(["sleep", "60"])
        words = [str(owner.pid), str(tmp_path / "config"), "suite-1"]
        watchdog = subprocess.Popen([sys.executable, "-m", "inferencebox.job.watchdog", *words])
        owner.kill()
        owner.wait()
        assert watchdog.wait(timeout=60) == 0
        assert api.objects == {}

    def test_removing_what_is_gone_is_no_error(self, server: Server, tmp_path: Path) -> None:
        remove(Kube(config_file(server.endpoint, tmp_path)), "suite-1")
