"""The cluster that the platform stands on, and what the mesh's own tool says of its configuration."""

import json
import subprocess
import time
from collections.abc import Iterator
from functools import partial

import pytest
import yaml

from fixtures.nodes import are_ours, with_kubelets
from fixtures.scenario import not_exercised, scenario
from inferencebox.checks import equals, that
from inferencebox.probes.http import Call
from inferencebox.probes.kubernetes import is_ready
from inferencebox.programs import provide
from inferencebox.release import Release
from inferencebox.waiting import confirm, eventually

ROLE = "node-role.kubernetes.io/"
WORKERS = 2
ANALYZE_SECONDS = 120.0


@scenario("OPS-03", needs=("pods",), why_no_sabotage="another cluster would have to be made", seconds=3)
@pytest.mark.parametrize("what", ["names", "roles"])
def test_the_cluster_is_called_and_made_as_promised(platform, kube, what, story):
    """The cluster is `inference-in-a-box`, its context has kind's name for it, one node leads and two work."""
    nodes = with_kubelets(kube)
    if not are_ours(nodes):
        not_exercised("this cluster is somebody's own: what it is called and made of is not for us to say")
    leading = [node for node in nodes if f"{ROLE}control-plane" in node["metadata"]["labels"]]
    if what == "names":
        name = "inference-in-a-box" + ("" if platform.instance == "default" else f"-{platform.instance}")
        with story.then(f"the context of its configuration is kind-{name}, and so is its cluster"):
            config = yaml.safe_load(platform.kubeconfig.read_text())
            confirm(config["current-context"], equals(f"kind-{name}"))
            confirm([each["name"] for each in config["clusters"]], equals([f"kind-{name}"]))
        with story.then("and its nodes are called after it"):
            ours = that(f"a name that begins with {name}-", lambda node: node.startswith(f"{name}-"))
            for node in nodes:
                confirm(node["metadata"]["name"], ours)
        return
    if len(nodes) == 1:
        not_exercised("this cluster was made with one node (--nodes 1), which does everything")
    with story.then("one node leads, two work, all are ready"):
        confirm((len(leading), len(nodes) - len(leading)), equals((1, WORKERS)))
        confirm([node["metadata"]["name"] for node in nodes if not is_ready(node)], equals([]))


# istioctl looks for the pods that a Gateway selects and the namespaces that policies name: without pods some lack.
@scenario(
    "OPS-06",
    needs=("kubernetes", "mesh", "pods"),
    sabotage=("mesh.broken-reference", "mesh.configuration-refused"),
    seconds=15,
)
def test_the_mesh_finds_no_error_in_its_configuration(platform, kube, story):
    """Istio's own `istioctl analyze` finds no error in the whole configuration, and does find one that is put there."""
    istioctl = provide(Release.load(platform.release), ["istioctl"])["istioctl"]

    def errors() -> list[str]:
        argv = [str(istioctl), "--kubeconfig", str(platform.kubeconfig), "analyze", "-A", "-o", "json"]
        done = subprocess.run(argv, capture_output=True, text=True, timeout=ANALYZE_SECONDS, check=False)
        story.note("istioctl analyze -A", done.stdout + done.stderr)
        found = json.loads(done.stdout)
        return sorted(f"{each['code']} {each['origin']}" for each in found if each["level"] == "Error")

    with story.then("there is no error in it"):
        confirm(errors(), equals([]))
    with story.then("and istiod goes by what it was told for the whole mesh"):
        eventually(partial(_unheeded, platform, kube), equals([]))
    route = {
        "apiVersion": "networking.istio.io/v1",
        "kind": "VirtualService",
        "metadata": {"name": f"nowhere-{time.time_ns()}", "namespace": "default"},
        "spec": {"hosts": ["nowhere.inference-in-a-box"], "gateways": ["default/nowhere"], "http": [_to_nowhere()]},
    }
    with story.when("somebody adds a route of a gateway that is not there, to a host that is not there"):
        kube.apply(route)[0].require()
    try:
        with story.then("that is found, and nothing else"):
            name = f"VirtualService default/{route['metadata']['name']}"
            confirm({each.partition(" ")[2] for each in errors()}, equals({name}))
    finally:
        kube.delete_all(route)


def _unheeded(platform, kube) -> list[str]:
    """What istiod was told and does not go by: one unreadable word, and it goes on as before, or by defaults."""
    told = yaml.safe_load(kube.get("configmap", "istio", "istio-system").require()["data"]["mesh"])
    used = Call("GET", platform.endpoint("istiod"), "/debug/mesh")().json()
    return sorted(_other_than(told, used))


def _other_than(told: object, used: object, place: str = "") -> Iterator[str]:
    if isinstance(told, dict) and isinstance(used, dict):
        for key, value in told.items():
            yield from _other_than(value, used.get(key), f"{place}/{key}")
    elif isinstance(told, list) and isinstance(used, list):  # it adds its own
        yield from (place for each in told if each not in used)
    elif told != used:
        yield place


def _to_nowhere() -> dict:
    return {"route": [{"destination": {"host": "nowhere.default.svc.cluster.local"}}]}
