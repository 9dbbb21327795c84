"""One command brings a platform up, the same command changes nothing, one command leaves nothing."""

import contextlib
import json
import os
import signal
import subprocess
import tempfile
import uuid
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

import pytest
import yaml

from fixtures.commands import run_ibox
from fixtures.gateway import Gateway
from fixtures.scenario import not_exercised, scenario
from inferencebox import command_line
from inferencebox.checks import answered, at_most, body_json, equals, no_connection, present
from inferencebox.errors import ENVIRONMENT, SetupProblem
from inferencebox.identity import DemoTokens
from inferencebox.paths import project_root
from inferencebox.platform import Endpoint
from inferencebox.probes.http import Call
from inferencebox.probes.kubernetes import Kube
from inferencebox.providers.kind import cluster, engine, node
from inferencebox.providers.kind.engine import Engine
from inferencebox.release import DEFAULT_RELEASE, Release
from inferencebox.waiting import Timeouts, confirm, eventually

MINUTES = 60
KINDS = ("httproute", "gateway", "securitypolicy", "backendtrafficpolicy", "virtualservice", "authorizationpolicy")
INSTANCE = "own"


@dataclass
class Own:
    """A platform of this test's own, handled by its command line alone, with a state folder of its own."""

    root: Path

    def ibox(self, *words, instance=INSTANCE):
        return run_ibox(*words, "--instance", instance, timeout=20 * MINUTES, IBOX_STATE=str(self.root))

    def up(self):
        done = self.ibox("up", "--models", "stub")
        if done.returncode == ENVIRONMENT:
            raise SetupProblem(f"ibox up: {done.stderr.strip()}", "see the step before")
        assert done.returncode == 0, f"ibox up: exit {done.returncode}: {done.stderr.strip()}"
        return done

    def status(self):
        return json.loads(self.ibox("status", "--json").stdout)

    def endpoints(self, status=None):
        """Where it answers, as its status says."""
        told = (status or self.status())["endpoints"]
        parts = {name: urlsplit(address) for name, address in told.items()}
        return {name: Endpoint(part.scheme, part.hostname, part.port) for name, part in parts.items()}

    def processes(self):
        """Every process of the platform, inside the box and outside: number and start."""
        return {(folder.name, _started(folder)) for folder in Path("/proc").iterdir() if self._is_mine(folder)}

    def _is_mine(self, folder):
        if not folder.name.isdigit():
            return False
        try:
            words = (folder / "cmdline").read_bytes() + (folder / "environ").read_bytes()
            return str(self.root).encode() in words or os.readlink(folder / "ns/pid") == self._namespace()
        except OSError:
            return False

    def _namespace(self):
        try:
            first = json.loads((self.root / INSTANCE / "box.json").read_text())["pid"]
            return os.readlink(f"/proc/{first}/ns/pid")
        except (OSError, ValueError):
            return None

    def leftovers(self):
        """Files of it: its folder, its sockets, its mounts."""
        temporary = Path(tempfile.gettempdir())
        mounts = [line for line in Path("/proc/self/mountinfo").read_text().splitlines() if str(self.root) in line]
        sockets = [str(path) for path in temporary.glob("ibox-*") if path.name in self._sockets]
        return [*map(str, self.root.glob("*")), *sockets, *mounts]

    @property
    def _sockets(self):
        from inferencebox.providers.local.box import sockets_dir

        return {sockets_dir(self.root / INSTANCE).name}


def _started(folder):
    try:
        return (folder / "stat").read_text().rsplit(")", 1)[1].split()[19]
    except OSError:
        return ""


@pytest.fixture(scope="module")
def own(tmp_path_factory):
    """The platform, brought up when a test wants it, taken down at the end whatever happened."""
    platform = Own(tmp_path_factory.mktemp("own"))
    yield platform
    platform.ibox("down")


def objects(kube):
    """Every policy object and which generation of it: what `up` could have changed."""
    return {
        (kind, item["metadata"].get("namespace"), item["metadata"]["name"]): (
            item["metadata"]["uid"],
            item["metadata"].get("generation"),
        )
        for kind in KINDS
        for item in kube.list(kind).items
    }


@scenario(
    "OPS-02",
    why_no_sabotage="it brings a platform of its own up, which nobody can have broken before",
    group="own-platform",
    exclusive=True,
    seconds=60,
)
def test_one_command_brings_the_platform_up(own, story):
    """One command, within 15 minutes, and the platform answers; the same command again changes nothing."""
    with story.when("ibox up is run on a machine without a platform"):
        done = own.up()
        story.note("seconds", f"{done.seconds:.1f}")
    with story.then("it is up in time, every part runs, and it has said where it answers"):
        assert not (why := at_most(15 * MINUTES)(done.seconds)), why
        before = own.status()
        assert {part["state"] for part in before["components"]} == {"running"}, "not every part runs"
        endpoints = own.endpoints(before)
        gateway = endpoints["gateway"]
        assert gateway.url in done.stdout, f"{gateway.url} was not said"
    with story.then("a model answers through both gateways"):
        token = DemoTokens(endpoints["jwt-server"]).token("tenant-a")
        ask = Gateway(gateway).predict("sklearn-iris", token)
        eventually(ask, answered(200) & body_json("predictions", present()), within=Timeouts.current().ready)
    kube = Kube(Path(before["kubeconfig"]))
    with story.when("ibox up is run again"):
        made = objects(kube)
        again = own.up()
    with story.then("it takes seconds"):
        assert not (why := at_most(30)(again.seconds)), f"seconds: {why}"
        assert again.seconds < done.seconds / 2, f"{again.seconds:.1f} s, the first time {done.seconds:.1f} s"
        assert "nothing changed" in again.stdout, f"it says {again.stdout.splitlines()[:1]}"
    with story.then("and the same processes run, with the same objects"):
        assert made, "there are no objects to compare"
        pids = [{part["name"]: part["pid"] for part in state["components"]} for state in (before, own.status())]
        assert pids[0] == pids[1], f"other processes: {sorted(pids[0].items() ^ pids[1].items())}"
        changed = {key for key, _ in objects(kube).items() ^ made.items()}
        assert not changed, f"changed: {sorted(map(str, changed))}"
        eventually(ask, answered(200))


@contextlib.contextmanager
def killed(root, *words):
    """`ibox up` with these words, for as long as the block takes; then it is killed. Gives its process."""
    start = subprocess.Popen(
        command_line.ibox("up", "--models", "stub", *words),
        env={**os.environ, "IBOX_STATE": str(root)},
        cwd=project_root(),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        yield start
    finally:
        start.send_signal(signal.SIGKILL)
        start.wait()


@scenario(
    "OPS-10",
    why_no_sabotage="it takes a platform of its own down, which nobody can have broken before",
    group="own-platform",
    exclusive=True,
    seconds=25,
)
@pytest.mark.parametrize("made_of", ["processes", "containers"])
def test_nothing_is_left_behind(own, made_of, story):
    """After ibox down there is no process, container, mount or file of it left; also after a start that was killed."""
    if made_of == "containers":
        no_container_is_left(own, story)
        return
    with story.given("a platform that is up"):
        own.up()
        endpoints = own.endpoints()
        ends = [endpoints[name] for name in ("gateway", "jwt-server", "kubernetes")]
        processes = own.processes()
        assert len(processes) > 10, f"only {len(processes)} processes were found"
        assert own.leftovers(), "no files were found"
    with story.when("ibox down is run"):
        assert own.ibox("down").returncode == 0, "ibox down failed"
    with story.then("nothing of it is left, and nothing listens any more"):
        assert_gone(own, processes)
        for end in ends:
            eventually(Call("GET", end, "/", insecure=True, fresh=True), no_connection())
    with story.then("down again is no error"):
        assert own.ibox("down").returncode == 0, "ibox down on nothing failed"
    with story.when("a start is killed in the middle"):
        with killed(own.root, "--instance", INSTANCE):
            eventually(lambda: len(own.processes()) > 5, equals(True), within=Timeouts.current().ready)
        half = own.processes()
        story.note("left by the killed start", f"{len(half)} processes")
        assert half, "the killed start left nothing to clear"
    with story.then("ibox down clears that too"):
        assert own.ibox("down").returncode == 0, "ibox down failed"
        assert_gone(own, half)


@dataclass
class OwnCluster:
    """The containers of a Kind cluster of this test's own, as the engine knows them."""

    engine: Engine
    instance: str

    def containers(self, *which):
        """Numbers of those that are there, or of those of a state."""
        label = f"label={cluster.NODE_LABEL}={cluster.name_of(self.instance)}"
        filters = [word for name in (label, *which) for word in ("--filter", name)]
        return self.engine.run("ps", "--all", "--quiet", *filters).split()

    def volumes(self):
        """Of those containers."""
        names = "{{range .Mounts}}{{.Name}} {{end}}"
        return set(self.engine.run("inspect", "--format", names, *self.containers()).split())

    def left(self, volumes):
        """What the engine still has of it, and of these volumes."""
        return [*self.containers(), *(volumes & set(self.engine.run("volume", "ls", "--quiet").split()))]


def engine_with_node_image():
    """The engine of this machine, if a cluster can be begun there at once."""
    try:
        found = engine.find()
    except SetupProblem as problem:
        not_exercised(f"that no cluster and no container is left: {problem.what}")
    tags = found.run("images", "--format", "{{.Tag}}").split()
    if not any(tag.endswith(key) for tag in tags for key in node.keys(Release.load(DEFAULT_RELEASE))):
        not_exercised("that no cluster and no container is left: no node image is made yet (ibox up --provider kind)")
    return found


def contexts():
    """What kubectl knows of by itself on this machine."""
    files = (os.environ.get("KUBECONFIG") or str(Path.home() / ".kube" / "config")).split(os.pathsep)
    found = [yaml.safe_load(Path(file).read_text()) or {} for file in files if Path(file).is_file()]
    return sorted(each["name"] for config in found for each in config.get("contexts") or [])


def no_container_is_left(own, story):
    """A cluster is begun, no more: what takes a whole one away takes away the same containers."""
    ours = OwnCluster(engine_with_node_image(), f"own-{uuid.uuid4().hex[:6]}")
    before = contexts()
    words = ("--provider", "kind", "--nodes", "1", "--no-telemetry", "--no-logs", "--instance", ours.instance)
    try:
        with story.when("ibox up makes a Kind cluster, and is killed when its node runs"):
            with killed(own.root, *words) as start:

                def begun():
                    if start.poll() is not None:
                        raise SetupProblem(f"ibox up ended with {start.returncode}", f"ibox up {' '.join(words)}")
                    return ours.containers("status=running")

                eventually(begun, present(), within=Timeouts.current().first_ready)
            volumes = ours.volumes()
            story.note("left by the killed start", f"{len(ours.containers())} containers, {len(volumes)} volumes")
            assert ours.left(volumes), "the killed start left nothing to clear"
    finally:
        done = own.ibox("down", instance=ours.instance)
    with story.then("ibox down leaves no container of it, no volume, no file and no context"):
        assert done.returncode == 0, f"ibox down: exit {done.returncode}: {done.stderr.strip()}"
        eventually(lambda: ours.left(volumes), equals([]), within=10)
        eventually(lambda: [*own.root.glob(f"{ours.instance}*")], equals([]), within=10)
        confirm(contexts(), equals(before))


def assert_gone(own, processes):
    """Processes end within moments of their box; a door notices that by itself."""
    eventually(lambda: sorted(processes & own_processes(processes)), equals([]), within=10)
    eventually(own.leftovers, equals([]), within=10)
    eventually(own.processes, equals(set()), within=10)


def own_processes(wanted):
    """Those of the given processes that still live."""
    return {(number, started) for number, started in wanted if _started(Path("/proc") / number) == started}
