"""What users of published models get: language models, examples that run, usage that is counted, deeds noted."""

import contextlib
import json
import os
import shutil
import socket
import socketserver
import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import replace
from urllib.parse import urlsplit

import pytest

from fixtures.commands import run
from fixtures.management import leftovers, secret, unhurried
from fixtures.scenario import not_exercised, scenario
from inferencebox.checks import Check, answered, at_least, body_json, equals, present, refused, served_by, that
from inferencebox.platform import Platform
from inferencebox.probes.http import Observation
from inferencebox.redaction import redact_text
from inferencebox.waiting import Timeouts, confirm, eventually

NEEDS = ("management", "gateway", "models")


def tokens_in(reply: Observation) -> int:
    """What an OpenAI reply says that it took."""
    return int(reply.json()["usage"]["total_tokens"])


def tokens_told(platform: Platform, wanted: int) -> Check:
    """Usage has so many tokens; where nobody watches the gateway it says of none that it knows."""
    unwatched = platform.capabilities.get("prometheus")
    return answered(200) & body_json("usage.tokensUsed", equals(None if unwatched else wanted))


@scenario(
    "MGT-24",
    needs=(*NEEDS, "ai-gateway", "ratelimit"),
    wants=("prometheus",),
    sabotage=("publishing.openai-wrong-host", "metrics.tier-1-uncounted"),
    seconds=50,
)
def test_a_language_model_is_published(publishing, platform, tenant_b, kube, gateway, story):
    """A language model gets a route of the AI gateway; a chat with its key is answered, and its tokens are counted."""
    found = publishing(
        "tenant-b",
        api="openai",
        wait=False,
        rateLimiting={"requestsPerMinute": 500, "requestsPerHour": 5000, "tokensPerHour": 40},
    )
    name, said = found.model.name, []
    with story.then("claim, key, backends, AI route, limits and documentation exist"):
        ai = {"aigatewayroute", "backend.gateway.envoyproxy.io", "aiservicebackend"}
        made_of_it_by_the_ai_gateway = {"httproute"}
        wanted = {"publishedmodel", "secret", "backendtrafficpolicy", "configmap"} | ai | made_of_it_by_the_ai_gateway
        eventually(lambda: {entry.split()[0] for entry in leftovers(kube, "tenant-b", name)}, equals(wanted))
    with story.then("a chat is answered in OpenAI's form by the model"):
        form = body_json("object", equals("chat.completion")) & body_json("usage.total_tokens", at_least(1))
        said.append(tokens_in(eventually(found.chat(body={"max_tokens": 4}), answered(200))))
        reply = confirm(found.chat(body={"max_tokens": 1})(), answered(200) & served_by(found.model) & form)
        said.append(tokens_in(reply))
    with story.then("an OpenAI client's bearer token beside the key does no harm"):
        both = found.chat(body={"max_tokens": 1}).adding(("Authorization", "Bearer unused"))
        said.append(tokens_in(confirm(both(), answered(200) & served_by(found.model))))
    with story.then("another model can't be asked with it"):
        confirm(found.chat(model="tiny-llm")(), refused(403, 404))
    with story.then("tokens are counted: when the hour's forty are spent, there is a 429"):
        chat = found.chat(body={"max_tokens": 8})
        for _ in range(40):
            seen = chat()
            if seen.status == 429:
                break
            said.append(tokens_in(confirm(seen, answered(200))))
        confirm(seen, refused(429, by="ratelimit"))
        story.note("tokens", f"refused after {sum(said)} tokens")
    follows = {"within": Timeouts.current().metric, "every": 1.0}
    usage = found.by.published(name)
    with story.when("the tenant asks the model with its own token, and puts that down to the publication"):
        uid = kube.get("publishedmodel", name, "tenant-b").require()["metadata"]["uid"]
        with_token = gateway.chat(found.model, tenant_b.token).adding(("x-publication", uid))
        eventually(with_token, answered(200) & served_by(found.model))
    with story.then("its usage has the tokens that the replies to its key named, and no others"):
        eventually(usage, tokens_told(platform, sum(said)), streak=3, **follows)
    with story.when("it is published anew"):
        confirm(found.by.unpublish(name)(), answered(200))
        told = confirm(found.by.publish(name)(), answered(200)).json()["publishedModel"]
        anew = replace(found, key=secret(told["apiKey"], f"new key of {name}"), told=told)
    with story.then("it begins at nothing, and follows what is used from now on"):
        confirm(usage(), tokens_told(platform, 0))
        only = tokens_in(eventually(anew.chat(body={"max_tokens": 2}), answered(200)))
        eventually(usage, tokens_told(platform, only), streak=3, **follows)
    if unwatched := platform.capabilities.get("prometheus"):
        story.note("left out", f"how many tokens were used: {unwatched}")


# --- MGT-25 ---------------------------------------------------------------------------------------------------------


class Tunnel(socketserver.BaseRequestHandler):
    """An HTTP proxy's CONNECT, which leads every host to one address: a name server for the test's clients."""

    def handle(self) -> None:
        head = b""
        while b"\r\n\r\n" not in head and (data := self.request.recv(4096)):
            head += data
        with socket.create_connection(self.server.target) as onward:  # type: ignore[attr-defined]
            self.request.sendall(b"HTTP/1.1 200 Connection established\r\n\r\n")
            back = threading.Thread(target=copy, args=(onward, self.request), daemon=True)
            back.start()
            copy(self.request, onward)
            back.join()


def copy(source: socket.socket, target: socket.socket) -> None:
    with contextlib.suppress(OSError):
        while data := source.recv(65536):
            target.sendall(data)
        target.shutdown(socket.SHUT_WR)


@contextlib.contextmanager
def names_of(endpoint) -> Iterator[str]:
    """Every host is at this endpoint for who uses the proxy; gives its address."""
    server = socketserver.ThreadingTCPServer(("127.0.0.1", 0), Tunnel)
    server.daemon_threads = True
    server.target = (endpoint.host, endpoint.port)  # type: ignore[attr-defined]
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        server.server_close()


NAMES_FOR_NODE = """
const tls = require("tls");
const connect = tls.connect;
tls.connect = (options, ...rest) => connect({ ...options, host: "127.0.0.1", port: %d }, ...rest);
"""
"""Node 20's fetch knows no proxy."""
RUN = {
    "curl": (["sh"], "example.sh"),
    "python": ([sys.executable], "example.py"),
    "javascript": (["node"], "example.mjs"),
    "go": (["go", "run"], "example.go"),
}
COMPILE = {"go": ["go", "build", "-o", os.devnull]}
COMPILE_SECONDS = 600
ANSWERS = {"kserve": "predictions", "openai": "choices"}
SAMPLES = {"kserve": {"sampleInput": json.dumps({"instances": [[5.1, 3.5, 1.4, 0.2]]})}, "openai": None}


@scenario(
    "MGT-25",
    needs=(*NEEDS, "gateway.tls", "ai-gateway"),
    sabotage=("publishing.wrong-host", "publishing.openai-wrong-host"),
    seconds=20,
)
@pytest.mark.parametrize("api", ANSWERS)
@pytest.mark.parametrize("language", RUN)
def test_each_example_runs(language, api, platform, publishing, secure_gateway, tmp_path, story):
    """The documentation of a published model has an example in each language; each runs as it stands."""
    command, file = RUN[language]
    if language in ("javascript", "go") and not shutil.which(command[0]):
        not_exercised(f"no {command[0]} on this machine")
    tenant = "tenant-a" if api == "kserve" else "tenant-b"
    found = publishing(tenant, api=api, metadata=SAMPLES[api])
    told = found.told["documentation"]
    text = told["sdkExamples"][language]
    with story.given("the example as it is given, with no key in it"):
        assert told["endpointUrl"] in text
        assert str.__str__(found.key) not in json.dumps(told)
        (tmp_path / file).write_text(text)
    if compiling := COMPILE.get(language):
        with story.given(
            "and compiled, with what it needs of the language's library: a minute or two, once on a machine"
        ):
            run(*compiling, file, timeout=COMPILE_SECONDS, cwd=tmp_path)
    with story.when("it is run"), names_of(secure_gateway.endpoint) as proxy:
        authority = str(platform.edge_ca)
        (tmp_path / "names.cjs").write_text(NAMES_FOR_NODE % secure_gateway.endpoint.port)
        env = {
            **{name: value for name, value in os.environ.items() if not name.lower().endswith("_proxy")},
            "API_KEY": str.__str__(found.key),
            "HTTPS_PROXY": proxy,
            "NODE_OPTIONS": f"--require={tmp_path / 'names.cjs'}",
            **dict.fromkeys(("SSL_CERT_FILE", "CURL_CA_BUNDLE", "NODE_EXTRA_CA_CERTS"), authority),
        }
        done = subprocess.run(
            [*command, file], cwd=tmp_path, env=env, capture_output=True, text=True, timeout=120, check=False
        )
    with story.then("it prints the model's answer"):
        assert done.returncode == 0, redact_text(done.stderr)[-600:]
        assert ANSWERS[api] in done.stdout, redact_text(done.stdout)[-300:]
    with story.then("the example request, with the key in its place, gets it too"):
        (request,) = told["exampleRequests"]
        key = str.__str__(found.key)
        example = secure_gateway.at(found.host).call(
            request["method"],
            urlsplit(request["url"]).path,
            headers=[(name, value.replace("$API_KEY", key)) for name, value in request["headers"].items()],
            json=request["body"],
            ca=platform.edge_ca,
            sni=found.host,
        )
        assert request["url"] == told["endpointUrl"] == f"https://{found.host}{example.path}"
        confirm(example(), answered(200) & served_by(found.model) & body_json(ANSWERS[api], present()))


# --- MGT-26, MGT-36 -------------------------------------------------------------------------------------------------


SENT = 23


@scenario("MGT-26", needs=NEEDS, sabotage="keys.unchecked", seconds=12)
def test_usage_is_counted(publishing, management, story):
    """The usage that a publication shows is the number of requests sent with its key."""
    found = publishing("tenant-a")
    usage = found.by.published(found.model.name)
    with story.given("what was counted so far, and a later second than that of its last request"):
        before = confirm(usage(), answered(200)).json()["usage"]
        last = before["lastAccessTime"] or ""
        later = body_json("timestamp", that(f"later than {last}", lambda now: now > last))
        now = eventually(management.anonymous.get("/health"), answered(200) & later).json()["timestamp"]
    with story.when(f"{SENT} requests are sent, and some with a wrong key"):
        for _ in range(SENT):
            confirm(found.ask(quiet=True)(), answered(200))
        for _ in range(5):
            confirm(found.ask("wrong", quiet=True)(), refused(401))

    def today(used):
        """All of them and those before, unless a new day (in UTC) has begun meanwhile."""
        if used["lastAccessTime"][:10] != last[:10]:
            return 0 < used["requestsToday"] <= SENT
        return used["requestsToday"] == before["requestsToday"] + SENT

    counted = body_json("usage.totalRequests", equals(before["totalRequests"] + SENT))
    counted &= body_json("usage.lastAccessTime", at_least(now))
    counted &= body_json("usage", that(f"{SENT} more today", today))
    counted &= body_json("usage.tokensUsed", equals(None))  # it has none
    with story.then(f"{SENT} more are counted"):
        confirm(usage(), answered(200) & counted)


@scenario("MGT-36", needs=(*NEEDS, "logs"), sabotage="management.cannot-create", seconds=10)
def test_deeds_are_noted(publishing, platform, administrator, story):
    """Publishing, rotating, changing and unpublishing leave one audit entry each: who, what, when, how it ended."""
    found = publishing("tenant-a", wait=False)
    name = found.model.name
    with story.when("the model is changed, its key rotated, and it is unpublished"):
        confirm(found.by.republish(name, externalPath=f"/changed/{name}")(), answered(200))
        confirm(found.by.rotate(name)(), answered(200))
        confirm(found.by.unpublish(name)(), answered(200))

    def entries() -> list[dict]:
        texts = [log.read_text(errors="replace") for log in platform.logs.glob("default.management*.log")]
        lines = [line for text in texts for line in text.splitlines() if line.startswith("{") and name in line]
        return [entry for entry in map(json.loads, lines) if entry.get("model") == name]

    with story.then("the log has one entry for each, in order"):
        wanted = ["publish", "republish", "rotate-key", "unpublish"]
        done = that("one each", lambda found: [entry["audit"] for entry in found] == wanted)
        seen = eventually(entries, done, within=Timeouts.current().audit)
    with story.then("each says who, when and how it ended, and holds no key"):
        for entry in seen:
            assert entry["tenant"] == "tenant-a", entry
            assert entry["subject"].startswith("user-"), entry
            assert entry["outcome"] == "done", entry
            assert entry["time"], entry
            assert entry["request_id"], entry
            assert "ibk_" not in json.dumps(entry)
    with story.then("the administrator sees them too"):
        mine = that("four", lambda logs: len([e for e in logs if e.get("model") == name]) == len(wanted))
        confirm(unhurried(administrator.get("/api/admin/logs?lines=500")), answered(200) & body_json("logs", mine))
