"""A Kind cluster's life with kind, docker and kubectl that are scripts: what is asked of them, and what never is."""

import json
from pathlib import Path

import pytest
import yaml

from fixtures.options import kind_options, stays
from inferencebox import policies
from inferencebox.errors import SetupProblem
from inferencebox.layers.catalogue import layers
from inferencebox.layers.choice import Choice
from inferencebox.programs.progress import Silent
from inferencebox.providers.kind import cluster, node
from inferencebox.providers.kind import up as kind_up
from inferencebox.providers.kind.cluster import Cluster, Tools
from inferencebox.providers.kind.engine import Engine
from inferencebox.providers.kubernetes.images import references
from inferencebox.providers.options import KindOptions, PlatformOptions
from inferencebox.release import DEFAULT_RELEASE, Release

pytest_kind = pytest.importorskip("pytest_kind.cluster")

KUBECONFIG = {
    "current-context": "kind-box",
    "contexts": [{"name": "kind-box", "context": {"cluster": "c", "user": "u"}}],
    "clusters": [{"name": "c", "cluster": {"server": "https://127.0.0.1:1"}}],
    "users": [{"name": "u", "user": {}}],
}
POLICY = Path("/state/kubernetes-audit.yaml")
KIND = """\
echo "kind $@" >> "{home}/calls"
case "$1 $2" in
"get clusters") cat "{home}/clusters" 2>/dev/null; exit 0 ;;
"create cluster") [ -e "{home}/broken" ] && {{ echo "ERROR: failed to create cluster: no room" >&2; exit 1; }}
  echo box > "{home}/clusters"; echo "box-control-plane" > "{home}/nodes"; cp "{home}/given" "{home}/box/kubeconfig" ;;
"delete cluster") rm -f "{home}/clusters" "{home}/nodes" ;;
"export kubeconfig") cp "{home}/given" "{home}/box/kubeconfig" ;;
esac
"""
DOCKER = """\
echo "docker $@" >> "{home}/calls"
case "$*" in
*status=exited*) cat "{home}/stopped" 2>/dev/null; exit 0 ;;
"ps "*) cat "{home}/nodes" 2>/dev/null; exit 0 ;;
"inspect "*) cat "{home}/volume" 2>/dev/null; exit 0 ;;
"info "*) cat "{home}/cores" 2>/dev/null || echo 4 ;;
"port "*) [ "$3" = 30080/tcp ] && echo 127.0.0.1:40123; exit 0 ;;
*" ls "*) cat "{home}/loaded" 2>/dev/null; exit 0 ;;
*" ctr "*) cat > "{home}/imported"; [ -e "{home}/full" ] && {{ echo "no space left on device" >&2; exit 1; }}; exit 0 ;;
*" touch "*) basename "$4" >> "{home}/loaded" ;;
esac
"""
KUBECTL = """\
echo "kubectl $@" >> "{home}/calls"
case "$*" in
*"get nodes"*) cat "{home}/described" ;;
*"get deployments"*) echo deployment.apps/coredns ;;
*"rollout status"*) [ -e "{home}/unready" ] && {{ echo "error: timed out waiting" >&2; exit 1; }}; exit 0 ;;
esac
"""


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where the scripts keep what they were asked. Whatever pytest-kind could fetch or forward fails the test."""
    for name, body in {"kind": KIND, "docker": DOCKER, "kubectl": KUBECTL}.items():
        script = tmp_path / "tools" / name
        script.parent.mkdir(exist_ok=True)
        script.write_text(f"#!/bin/sh\n{body.format(home=tmp_path)}")
        script.chmod(0o755)
    described = {"metadata": {"name": "box-control-plane"}, "spec": {"podCIDR": "10.244.0.0/24"}}
    (tmp_path / "described").write_text(json.dumps({"items": [described]}))
    (tmp_path / "given").write_text(yaml.safe_dump(KUBECONFIG))

    def never(*arguments: object, **options: object) -> None:
        pytest.fail(f"pytest-kind must not do this: {arguments} {options}")

    monkeypatch.setattr(pytest_kind.requests, "get", never)
    monkeypatch.setattr(pytest_kind.KindCluster, "port_forward", never)
    monkeypatch.setattr(pytest_kind.KindCluster, "kubectl", never)
    monkeypatch.setattr(pytest_kind.KindCluster, "load_docker_image", never)
    return tmp_path


@pytest.fixture
def box(home: Path) -> Cluster:
    tools = home / "tools"
    return Cluster("box", home / "box", Engine(tools / "docker", "28.0.0"), Tools(tools / "kind", tools / "kubectl"))


def calls(home: Path, program: str) -> list[str]:
    lines = (home / "calls").read_text().splitlines() if (home / "calls").exists() else []
    return [line.partition(" ")[2] for line in lines if line.startswith(f"{program} ")]


def test_a_cluster_is_created_by_the_pinned_kind_with_our_node_image(box: Cluster, home: Path) -> None:
    box.create("node:1", nodes=1, ports=[30080])
    (create,) = [call for call in calls(home, "kind") if call.startswith("create")]
    assert "--name=box" in create
    assert "--image=node:1" in create
    assert f"--config {box.home / 'kind.yaml'}" in create
    assert box.exists()
    assert box.context == "kind-box"


def test_the_clusters_own_parts_ask_for_what_they_need_on_one_node(box: Cluster, home: Path) -> None:
    box.create("node:1", nodes=1)
    asked = calls(home, "kubectl")
    for part, cpu in (("daemonset/kube-proxy", "50m"), ("deployment/coredns", "20m")):
        assert any(f"set resources {part}" in call and call.endswith(f"--requests=cpu={cpu}") for call in asked)
    assert any("scale deployment/coredns" in call and call.endswith("--replicas=1") for call in asked)


def test_a_nodes_kubelet_and_containerd_do_not_wait_for_its_pods(box: Cluster, home: Path) -> None:
    box.create("node:1", nodes=1)
    for unit in ("kubelet.service", "system.slice"):
        assert f"exec box-control-plane systemctl set-property {unit} CPUWeight=900" in calls(home, "docker")


def test_nothing_is_left_where_we_were(box: Cluster, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    here = home / "here"
    here.mkdir()
    monkeypatch.chdir(here)
    box.create("node:1", nodes=1)
    box.delete()
    assert not list(here.iterdir())
    assert not box.home.exists()
    assert not box.exists()


def test_a_cluster_that_is_there_is_left_as_it_is(box: Cluster, home: Path) -> None:
    box.create("node:1", nodes=1)
    box.create("node:1", nodes=1)
    assert len([call for call in calls(home, "kind") if call.startswith("create")]) == 1


def test_one_that_was_deleted_underneath_is_created_again(box: Cluster, home: Path) -> None:
    box.create("node:1", nodes=1)
    for name in ("clusters", "nodes"):
        (home / name).unlink()
    box.create("node:1", nodes=1)
    assert len([call for call in calls(home, "kind") if call.startswith("create")]) == 2


def test_nodes_that_an_engines_restart_left_stopped_are_started(box: Cluster, home: Path) -> None:
    box.create("node:1", nodes=1)
    (home / "stopped").write_text("box-control-plane\n")
    box.create("node:1", nodes=1)
    assert "start box-control-plane" in calls(home, "docker")


def test_another_number_of_nodes_is_refused(box: Cluster) -> None:
    box.create("node:1", nodes=1)
    with pytest.raises(SetupProblem, match=r"is there with 1 nodes, not 3\. Fix: take it down first"):
        box.create("node:1", nodes=3)


def test_without_a_number_a_cluster_keeps_its_nodes(box: Cluster) -> None:
    box.create("node:1", nodes=1)
    box.create("node:1")
    assert len(box.nodes()) == 1


def test_what_kind_says_about_its_failure_is_said(box: Cluster, home: Path) -> None:
    (home / "broken").touch()
    with pytest.raises(SetupProblem, match="kind cannot create box: ERROR: failed to create cluster: no room"):
        box.create("node:1", nodes=1)


def test_a_part_that_never_gets_ready_is_said(box: Cluster, home: Path) -> None:
    (home / "unready").touch()
    with pytest.raises(SetupProblem, match="kubectl rollout failed on box: error: timed out waiting"):
        box.create("node:1", nodes=1)


def test_deleting_what_is_not_there_is_no_error(box: Cluster) -> None:
    box.delete()


def test_the_port_of_this_machine_is_asked_for_and_never_assumed(box: Cluster) -> None:
    assert box.host_port(30080) == 40123
    with pytest.raises(SetupProblem, match="was created without node port 30443"):
        box.host_port(30443)


def archive_of(home: Path, name: str, key: str = "0" * 20) -> Path:
    path = home / name / key / "files/image.tar"
    path.parent.mkdir(parents=True)
    path.write_bytes(name.encode())
    return path


def test_an_image_is_loaded_once_into_each_node(box: Cluster, home: Path) -> None:
    box.create("node:1", nodes=1)
    archive = archive_of(home, "image-pause")
    assert box.load({"pause": archive}) == ["pause"]
    assert (home / "imported").read_bytes() == b"image-pause"
    assert box.load({"pause": archive}) == []
    assert box.load({"pause": archive_of(home, "other", "1" * 20)}) == ["pause"]


def test_a_node_without_room_is_said_and_the_image_does_not_count_as_loaded(box: Cluster, home: Path) -> None:
    box.create("node:1", nodes=1)
    archive = archive_of(home, "image-pause")
    (home / "full").touch()
    with pytest.raises(SetupProblem, match="cannot be loaded into box-control-plane: no space left on device"):
        box.load({"pause": archive})
    (home / "full").unlink()
    assert box.load({"pause": archive}) == ["pause"]


def test_every_node_has_a_zone_and_ports_are_kinds_choice() -> None:
    described = cluster.configuration(3, [30080], POLICY, {})
    zones = [one["labels"]["topology.kubernetes.io/zone"] for one in described["nodes"]]
    assert zones == ["zone-a", "zone-b", "zone-c"]
    assert [one["role"] for one in described["nodes"]] == ["control-plane", "worker", "worker"]
    (mapping,) = described["nodes"][0]["extraPortMappings"]
    assert mapping == {"containerPort": 30080, "hostPort": 0, "listenAddress": "127.0.0.1"}


def test_the_api_server_notes_what_is_done_where_a_collector_finds_it(box: Cluster) -> None:
    box.create("node:1", nodes=1)
    (control_plane,) = yaml.safe_load((box.home / "kind.yaml").read_text())["nodes"]
    mount, _store = control_plane["extraMounts"]
    assert yaml.safe_load(Path(mount["hostPath"]).read_text())["kind"] == "Policy"
    (patch,) = map(yaml.safe_load, control_plane["kubeadmConfigPatches"])
    told = patch["apiServer"]["extraArgs"]
    assert told["audit-policy-file"] == mount["containerPath"]
    assert told["audit-log-path"] == policies.kubernetes_audit_log()
    mounted = {volume["mountPath"]: volume["readOnly"] for volume in patch["apiServer"]["extraVolumes"]}
    assert mounted == {"/etc/kubernetes/audit": True, "/var/log/kubernetes": False}


def test_nobody_is_elected_on_the_only_control_plane(box: Cluster) -> None:
    box.create("node:1", nodes=1)
    (control_plane,) = yaml.safe_load((box.home / "kind.yaml").read_text())["nodes"]
    (patch,) = map(yaml.safe_load, control_plane["kubeadmConfigPatches"])
    assert [patch[part]["extraArgs"]["leader-elect"] for part in ("controllerManager", "scheduler")] == ["false"] * 2


def test_on_few_cores_what_keeps_the_cluster_takes_its_turns_on_one_thread(box: Cluster, home: Path) -> None:
    (home / "cores").write_text("2\n")
    box.create("node:1", nodes=1)
    (control_plane,) = yaml.safe_load((box.home / "kind.yaml").read_text())["nodes"]
    _cluster, init = map(yaml.safe_load, control_plane["kubeadmConfigPatches"])
    given = {mount["containerPath"]: Path(mount["hostPath"]) for mount in control_plane["extraMounts"]}
    patches = {Path(place).name for place in given if place.startswith(init["patches"]["directory"])}
    assert patches == {f"{part}+strategic.yaml" for part in cluster.CONTROL_PLANE}
    assert "GOMAXPROCS" in given[f"{init['patches']['directory']}/etcd+strategic.yaml"].read_text()
    assert "GOMAXPROCS=1" in given["/etc/systemd/system/kubelet.service.d/20-few-cores.conf"].read_text()


def test_on_more_cores_nothing_is_changed_of_what_keeps_the_cluster(box: Cluster) -> None:
    box.create("node:1", nodes=1)
    assert not (box.home / "node").exists()


def test_nodes_find_the_stores_archives_without_being_sent_them(
    box: Cluster, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("IBOX_CACHE", str(home / "cache"))
    box.create("node:1", nodes=1)
    box.load({"pause": archive_of(home / "cache/store", "image-pause")})
    nodes = yaml.safe_load((box.home / "kind.yaml").read_text())["nodes"]
    mounts = {mount["containerPath"]: mount for node in nodes for mount in node["extraMounts"]}
    assert mounts["/var/lib/inferencebox/store"]["hostPath"] == str(home / "cache/store")
    assert mounts["/var/lib/inferencebox/store"]["readOnly"]
    assert f"/var/lib/inferencebox/store/image-pause/{'0' * 20}/files/image.tar" in (home / "calls").read_text()


def test_the_nodes_own_log_files_are_where_their_volume_is(box: Cluster, home: Path) -> None:
    box.create("node:1", nodes=1)
    assert box.pod_logs() == []
    (home / "volume").write_text("/volumes/one\n")
    assert box.pod_logs() == [Path("/volumes/one/log/pods")]


def test_instances_have_clusters_of_their_own() -> None:
    assert cluster.name_of("default") == "inference-in-a-box"
    assert cluster.name_of("mine") == "inference-in-a-box-mine"


def test_a_cluster_called_otherwise_is_found_again_by_its_instance(
    box: Cluster, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("IBOX_STATE", str(home / "state"))
    asked = KindOptions("box", "node:1", home / "tools/kind", home / "tools/kubectl")
    release = Release.load(DEFAULT_RELEASE)
    (home / "box").symlink_to(home / "state/mine/kind")  # where kind's script writes
    cluster.handle("mine", box.engine, release, options=asked).create("node:1", nodes=1)
    tools = KindOptions(kind=asked.kind, kubectl=asked.kubectl)
    assert cluster.handle("mine", box.engine, release, options=tools).name == "box"
    assert cluster.handle("other", box.engine, release, options=tools).name == "inference-in-a-box-other"


class Config:
    """What pytest knows of its command line; without pytest-kind, it does not know that one's options."""

    def __init__(self, **options: object) -> None:
        self.options = options

    def getoption(self, name: str, default: object = None) -> object:
        return self.options.get(name.removeprefix("--"), default)


def test_pytest_kinds_options_are_taken() -> None:
    given = Config(cluster_name="box", kind_image="node:1", kind_bin="/opt/kind", kind_kubectl_bin=None)
    assert kind_options(given) == KindOptions("box", "node:1", Path("/opt/kind"))
    assert stays(Config(keep_cluster=True))


def test_without_pytest_kinds_options_the_releases_pins_count() -> None:
    assert kind_options(Config()) == KindOptions()
    assert kind_options(Config(cluster_name="pytest-kind")) == KindOptions()
    assert not stays(Config(keep=False, reuse=False))


def test_the_nodes_network_is_the_clusters_network() -> None:
    networking = cluster.configuration(1, [], POLICY, {})["networking"]
    assert networking == {"podSubnet": node.recipe().pod_subnet, "serviceSubnet": node.recipe().service_subnet}
    json.loads((node.folder() / "node/usr/local/share/inferencebox/pods.conflist").read_text())


def test_an_image_that_a_platform_can_do_without_does_not_keep_the_others_from_it(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    release = Release.load(DEFAULT_RELEASE)

    def provide(_release: Release, names: list[str], _progress: object) -> dict[str, Path]:
        if "grafana" in names:
            raise SetupProblem("its registry broke off", "try again")
        return {name: tmp_path / name for name in names}

    monkeypatch.setattr(kind_up.images, "provide", provide)
    ascent = kind_up.Ascent("own", release, PlatformOptions(), Silent())
    ascent.choice = Choice(layers(), {})
    ascent.make_images()
    assert set(references(release)) - set(ascent.archives) == {"grafana"}
    assert "kiali" in ascent.archives
