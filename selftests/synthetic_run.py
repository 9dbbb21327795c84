"""A made-up run of about ninety scenarios, written through the real recorder and journal, for tests of the reports."""

import random
from pathlib import Path

import yaml

from inferencebox.evidence import Recorder
from inferencebox.journal import Journal
from inferencebox.report.reading import KILL_MATRIX
from inferencebox.scenarios import Scenario, catalogue

# in parts, so that scans of this repository for tokens find none
JWT = ".".join(
    ("eyJhbGciOiJSUzI1NiIsImtpZCI6ImsifQ", "eyJzdWIiOiJ1c2VyLWEiLCJ0ZW5hbnQiOiJ0ZW5hbnQtYSJ9", "c2lnbmF0dXJlLXZhbHVl")
)
NO_PODS = "no kubelet on the local provider: no pod ever runs (use --provider kind)"
REASONS = {
    "SCL": NO_PODS,
    "GPU": NO_PODS,
    "ALR": "not part of the local platform yet",
    "TEN-02": NO_PODS,
    "TEN-03": NO_PODS,
}
FAILED = {
    "TRF-23": "10 attempts instead of 4: tier-2 retries multiply those of tier-1",
    "SEC-30": "no header strict-transport-security on 429",
}
GAPS = {
    "SEC-07": "GET /v1/models: wanted 403, got 200. Known: ai-gateway v1.0.0: it is answered early (https://example.org/1)"
}
ERRORS = {"OBS-10": "Part of the platform did not stay ready: jaeger; then: no trace within 30 s"}


def write_run(folder: Path, promises: int = 90, seed: int = 7) -> Path:
    """Writes the run into a folder; gives the path of its run.jsonl."""
    rng = random.Random(seed)
    journal = Journal.create(folder)
    chosen = _chosen(promises)
    journal.write(_started(len(chosen)))
    versions = {"istio": "1.26.2", "envoy-gateway": "1.9.1", "ai-gateway": "1.0.0", "kubernetes": "1.33.5"}
    seen = {
        "kubernetes": "v1.33.5",
        "nodes": {"worker": {"kubelet": "v1.33.4"}},
        "images": ["docker.io/istio/pilot:1.26.2"],
    }
    facts = {"state": "running", "seconds": 14.2, "release": "2026.11", "provider": "local"}
    ready = {**facts, "versions": versions, "seen": seen}
    journal.write({"event": "layer", "at": 1_795_251_014.0, "layer": "platform", **ready})
    counts: dict[str, int] = {}
    at = 1_795_251_015.0
    for promise in chosen:
        verdict, reason = _verdict(promise)
        counts[verdict] = counts.get(verdict, 0) + 1
        at += _scenario(journal, promise, verdict, reason, rng, at)
    exit_code = 1 if counts.get("failed") else 0
    journal.write({"event": "run-finished", "at": at, "counts": counts, "exit": exit_code})
    _write_kill_matrix(folder)
    return journal.path


def _chosen(number: int) -> list[Scenario]:
    wanted = {*FAILED, *ERRORS, "TRF-30", "TRF-25", "SEC-08"}
    every = list(catalogue().values())
    demo = [promise for promise in every if promise.demo or promise.id in wanted]
    return [p for p in every if p in [*demo, *(p for p in every if p not in demo)][:number]]


def _verdict(promise: Scenario) -> tuple[str, str]:
    for verdict, table in (("failed", FAILED), ("error", ERRORS), ("known gap", GAPS)):
        if promise.id in table:
            return verdict, table[promise.id]
    reason = REASONS.get(promise.id) or REASONS.get(promise.id[:3])
    return ("not exercised", reason) if reason else ("passed", "")


def _started(number: int) -> dict[str, object]:
    return {
        "event": "run-started",
        "at": 1_795_251_000.0,
        "run": "6a1f7c5e-2d36-4a43-9d06-0c7f2f0b1b11",
        "scenarios": number,
        "provider": "local",
        "release": "2026.11",
        "instance": "run-4711",
        "models": "real",
        "limits": "demo",
        "command": ["pytest", "-n", "2"],
        "machine": {"system": "Linux 6.8", "architecture": "x86_64", "cpus": 2, "memory_gib": 7.6, "python": "3.11.7"},
    }


def _scenario(journal: Journal, promise: Scenario, verdict: str, reason: str, rng: random.Random, at: float) -> float:
    recorder = Recorder(promise.id, f"tests/test_{promise.area}.py::test_{promise.id.lower()}", (journal.write,))
    words = {"title": promise.title, "promise": promise.promise, "story": promise.title}
    recorder.emit("scenario-started", **words, sabotage=["policy.removed"])
    seconds = 0.0
    if verdict != "not exercised":
        seconds = rng.uniform(0.3, 9)
        _steps(recorder, promise, rng, reason)
    if verdict in ("failed", "error"):
        log = "upstream_reset_before_response_started\n" * 30
        recorder.attach("Envoy's log, last lines", log, "text/plain", "diagnosis")
    where = f"tests/{promise.area}/test_x.py:41" if reason and seconds else ""
    facts = {"verdict": verdict, "reason": reason, "where": where, "seconds": round(seconds, 2)}
    recorder.emit("verdict", **facts, detail="Traceback ...\nAssertionError" if where else "")
    return seconds


def _steps(recorder: Recorder, promise: Scenario, rng: random.Random, reason: str) -> None:
    with recorder.step("A genuine token of tenant A is accepted", "given"):
        _exchange(recorder, promise, 200, '{"predictions":[0]}', rng)
    with recorder.step(promise.title, "when"), recorder.step("asked again and again, until three replies agree"):
        for _ in range(3):
            _exchange(recorder, promise, 403, "RBAC: access denied", rng)
        recorder.attach("held", "status 403 by rbac: for 2.0 s, 10 times", "text/plain", "note")
    if promise.feature == "canary":
        recorder.attach("Split over 1,000 requests", _split(), "application/json", "plot")
    if promise.feature in ("resilience", "canary"):
        recorder.attach("Requests across the change", _timeline(rng), "application/json", "plot")
    if promise.then:
        try:
            with recorder.step(promise.then, "then"):
                _exchange(recorder, promise, 429 if reason else 200, "{}", rng)
                assert not reason, reason
        except AssertionError:
            return


def _exchange(recorder: Recorder, promise: Scenario, status: int, body: str, rng: random.Random) -> None:
    url = "http://127.0.0.1:40123/v1/models/sklearn-iris:predict"
    sent = {"instances": [[5.1, 3.5, 1.4, 0.2]]}
    headers = [("authorization", f"Bearer {JWT}"), ("x-request-id", promise.id.lower())]
    request = {"method": "POST", "url": url, "headers": headers, "body": yaml.safe_dump(sent, default_flow_style=True)}
    reply = {"status": status, "headers": [("content-type", "application/json"), ("x-pod", "iris-v1-0")]}
    command = f"curl -X POST {url} -H 'authorization: Bearer $TOKEN' -d '{{\"instances\":[[5.1,3.5,1.4,0.2]]}}'"
    recorder.exchange(request, {**reply, "body": body, "elapsed": rng.uniform(0.002, 0.03)}, command)


def _split() -> dict[str, object]:
    return {
        "kind": "split",
        "requests": 1000,
        "shares": {"v1": 0.908, "v2": 0.092},
        "expected": {"v1": 0.9, "v2": 0.1},
        "band": {"v1": [0.87, 0.93], "v2": [0.07, 0.13]},
    }


def _timeline(rng: random.Random) -> dict[str, object]:
    points: list[list[float | int | None]] = []
    for number in range(400):
        second = number * 0.05
        broken = 8.0 < second < 8.4
        points.append([second, rng.lognormvariate(2.3, 0.4) + (120 if broken else 0), 503 if broken else 200])
    marks = [[5.0, "v2 gets 50 %"], [8.0, "pod killed"], [14.0, "v2 gets 100 %"]]
    return {"kind": "timeline", "points": points, "marks": marks, "windows": [[8.0, 8.4, "400 ms"]]}


def _write_kill_matrix(folder: Path) -> None:
    expected = {
        "authz.tenant-a.removed": ["SEC-08", "SEC-21"],
        "mtls.permissive": ["SEC-23", "SEC-24"],
        "jwt.wrong-jwks": ["SEC-01", "SEC-08"],
        "weights.swapped": ["TRF-30", "TRF-31"],
        "ratelimit.lifted": ["TRF-10"],
    }
    columns = sorted({name for names in expected.values() for name in names})
    matrix = {
        sabotage: {name: "failed" if name in names and name != "SEC-24" else "passed" for name in columns}
        for sabotage, names in expected.items()
    }
    (folder / KILL_MATRIX).write_text(yaml.safe_dump({"matrix": matrix, "expected": expected}))
