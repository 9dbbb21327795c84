"""Load, rough treatment and generated calls for the management service of a running local platform.

A service of its own is started for it, against the same Kubernetes API and with wide limits for its users.

Examples:
    python benchmarks/management_service.py load --rate 500 --seconds 20
    python benchmarks/management_service.py rough
    python benchmarks/management_service.py properties --examples 400
"""

import argparse
import asyncio
import base64
import contextlib
import itertools
import json
import math
import os
import socket
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import httpx
import yaml

from inferencebox.identity import DemoTokens
from inferencebox.probes.kubernetes import Kube
from inferencebox.providers import attach

TARGET_MS = 10.0
CONNECTIONS = 16
CHECKS = (
    "not_a_server_error,status_code_conformance,content_type_conformance,response_schema_conformance,no_tenant_escape"
)
HOOKS = '''
import json
import schemathesis

@schemathesis.check
def no_tenant_escape(ctx, response, case):
    """Whatever is asked with tenant A's token, nothing of tenant B or C is in the reply of a success."""
    if response.status_code >= 300 or "/openapi" in case.path:
        return
    told = response.content.decode("utf-8", "replace")
    for other in ("tenant-b", "tenant-c"):
        assert f\'"namespace":"{other}"\' not in told.replace(" ", ""), f"{case.method} {case.path} told of {other}"
'''


@contextlib.contextmanager
def service(platform, folder: Path) -> Iterator[tuple[str, int]]:
    """A management service of this run's own; gives its address and process."""
    config = yaml.safe_load(Path(platform.kubeconfig).read_text())
    (folder / "ca.crt").write_bytes(base64.b64decode(config["clusters"][0]["cluster"]["certificate-authority-data"]))
    token = Kube(platform.kubeconfig).token("default", "management", seconds=7200)
    (folder / "token").write_text(str.__str__(token))
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    env = {
        **os.environ,
        "MANAGEMENT_KUBE_URL": platform.endpoint("kubernetes").url.replace("localhost", "127.0.0.1"),
        "MANAGEMENT_KUBE_TOKEN": str(folder / "token"),
        "MANAGEMENT_KUBE_CA": str(folder / "ca.crt"),
        "MANAGEMENT_JWKS_URL": platform.endpoint("jwt-server").url + "/.well-known/jwks.json",
        "MANAGEMENT_GATEWAY_URL": platform.endpoint("gateway").url.replace("localhost", "127.0.0.1"),
        "MANAGEMENT_INSTANCE": f"benchmark-{os.getpid()}",
        "MANAGEMENT_CALLS_PER_MINUTE": "100000000",
        "MANAGEMENT_CALLS_PER_SECOND": "100000000",
    }
    command = [str(Path(sys.executable).parent / "management"), "serve", "--host", "127.0.0.1", "--port", str(port)]
    with (folder / "service.log").open("wb") as log:
        process = subprocess.Popen(command, env=env, stdout=log, stderr=log)
    base = f"http://127.0.0.1:{port}"
    try:
        until(lambda: httpx.get(f"{base}/ready", trust_env=False).status_code == 200, 60)
        yield base, process.pid
    finally:
        process.terminate()
        process.wait(20)


def until(holds, seconds: float) -> None:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        with contextlib.suppress(httpx.HTTPError):
            if holds():
                return
        time.sleep(0.2)
    raise SystemExit(f"not so within {seconds:.0f} s")


# --- load


async def lane(port: int, request: bytes, due: list[float], begun: float, spent: list[float], seen: Counter) -> None:
    """Sends requests at their times over one connection, whether the one before was late or not."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    for moment in due:
        await asyncio.sleep(max(0.0, begun + moment - time.perf_counter()))
        writer.write(request)
        head = await reader.readuntil(b"\r\n\r\n")
        length = next(int(line[15:]) for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:"))
        await reader.readexactly(length)
        spent.append((time.perf_counter() - begun - moment) * 1000)
        seen[head[9:12].decode()] += 1
    writer.close()


async def load(base: str, key: str, rate: int, seconds: float) -> tuple[list[float], Counter]:
    port = int(base.rpartition(":")[2])
    body = json.dumps({"apiKey": key})
    request = (
        f"POST /api/validate-api-key HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\n"
        f"content-length: {len(body)}\r\n\r\n{body}"
    ).encode()
    moments = [number / rate for number in range(int(rate * seconds))]
    spent: list[float] = []
    seen: Counter = Counter()
    begun = time.perf_counter() + 0.2
    await asyncio.gather(
        *(lane(port, request, moments[i::CONNECTIONS], begun, spent, seen) for i in range(CONNECTIONS))
    )
    return spent, seen


def cpu_seconds(pid: int) -> float:
    """Processor time that a process has used."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def percentile(values: list[float], percent: float) -> float:
    return sorted(values)[max(0, math.ceil(percent / 100 * len(values)) - 1)]


def run_load(base: str, platform, arguments: argparse.Namespace) -> bool:
    with published(base, platform) as key:
        asyncio.run(load(base, key, 50, 2))
        before = cpu_seconds(arguments.pid)
        spent, seen = asyncio.run(load(base, key, arguments.rate, arguments.seconds))
        used = cpu_seconds(arguments.pid) - before
    p99 = percentile(spent, 99)
    times = ", ".join(f"p{part} {percentile(spent, part):.2f} ms" for part in (50, 95, 99))
    print(f"validate-api-key at {arguments.rate}/s for {arguments.seconds:g} s: {dict(seen)}; {times}")
    print(f"processor time of the service: {1000 * used / len(spent):.2f} ms a request")
    print(f"target: p99 at most {TARGET_MS:g} ms; load of the machine: {os.getloadavg()[0]:.1f}")
    return p99 <= TARGET_MS and set(seen) == {"200"}


@contextlib.contextmanager
def published(base: str, platform) -> Iterator[str]:
    """A model of tenant A is published meanwhile, by the platform's own service: it reaches models. Gives its key."""
    own = platform.endpoint("management").url
    headers = {"authorization": f"Bearer {str.__str__(DemoTokens(platform.endpoint('jwt-server')).token('tenant-a'))}"}
    limits = {"requestsPerMinute": 1000000, "requestsPerHour": 100000000}
    with httpx.Client(base_url=own, headers=headers, trust_env=False, timeout=30) as client:
        path = "/api/models/sklearn-iris/publish"
        client.delete(path)
        made = client.post(path, json={"config": {"tenantId": "tenant-a", "rateLimiting": limits}}).raise_for_status()
        key = made.json()["publishedModel"]["apiKey"]
        try:
            validate = f"{base}/api/validate-api-key"
            until(lambda: httpx.post(validate, json={"apiKey": key}, trust_env=False).status_code == 200, 10)
            yield key
        finally:
            client.delete(path)


# --- rough treatment


def run_rough(base: str, platform, _: argparse.Namespace) -> bool:
    found = {
        "64 MiB body": big_body(base),
        "slow client": slow_client(base),
        "1,000 connections": asyncio.run(many_connections(base)),
        "Kubernetes away and back": kubernetes_away(base, platform),
    }
    for name, (good, told) in found.items():
        print(f"{'ok  ' if good else 'FAIL'} {name}: {told}")
    return all(good for good, _ in found.values())


def big_body(base: str) -> tuple[bool, str]:
    """Announced, and in pieces without a length."""
    port = int(base.rpartition(":")[2])
    statuses = []
    for head in (f"content-length: {64 << 20}", "transfer-encoding: chunked"):
        with socket.create_connection(("127.0.0.1", port), timeout=30) as connection:
            connection.sendall(f"POST /api/admin/login HTTP/1.1\r\nhost: x\r\n{head}\r\n\r\n".encode())
            with contextlib.suppress(OSError):
                for _ in range(1024):
                    part = b"x" * 65536
                    connection.sendall(part if "length" in head else b"10000\r\n" + part + b"\r\n")
            with contextlib.suppress(OSError):
                statuses.append(connection.recv(64)[9:12].decode() or "closed")
    alive = httpx.get(f"{base}/health", trust_env=False).status_code
    return set(statuses) <= {"413", "closed"} and alive == 200, f"{statuses}, then health {alive}"


def slow_client(base: str) -> tuple[bool, str]:
    port = int(base.rpartition(":")[2])
    with socket.create_connection(("127.0.0.1", port), timeout=40) as connection:
        connection.sendall(b"POST /api/admin/login HTTP/1.1\r\nhost: x\r\ncontent-length: 100\r\n\r\n{")
        begun = time.monotonic()
        status = connection.recv(64)[9:12].decode()
    return status == "408", f"{status} after {time.monotonic() - begun:.0f} s; others meanwhile were answered"


async def many_connections(base: str) -> tuple[bool, str]:
    port = int(base.rpartition(":")[2])

    async def one() -> str:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(b"GET /api/frameworks HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n")
        head = await asyncio.wait_for(reader.read(64), 60)
        writer.close()
        return head[9:12].decode()

    begun = time.monotonic()
    seen = Counter(await asyncio.gather(*(one() for _ in range(1000))))
    return seen == {"200": 1000}, f"{dict(seen)} in {time.monotonic() - begun:.1f} s"


def kubernetes_away(base: str, platform) -> tuple[bool, str]:
    """What is published stays usable, what needs the API says 503, and afterwards everything is as before."""
    tenant = {"authorization": f"Bearer {str.__str__(DemoTokens(platform.endpoint('jwt-server')).token('tenant-a'))}"}

    def ask(path: str, **options: object) -> int:
        return httpx.request(
            **{"method": "GET", "url": base + path, "trust_env": False, "timeout": 30, **options}
        ).status_code

    with published(base, platform) as key:
        platform.stop("kube-apiserver")
        try:
            valid = ask("/api/validate-api-key", method="POST", json={"apiKey": key})
            listed, health = ask("/api/models", headers=tenant), ask("/health")
        finally:
            platform.start("kube-apiserver")
        until(lambda: ask("/api/models", headers=tenant) == 200, 90)
        after = ask("/api/validate-api-key", method="POST", json={"apiKey": key})
    good = (valid, listed, health, after) == (200, 503, 200, 200)
    return good, f"away: key {valid}, list {listed}, health {health}; back: key {after}"


# --- generated calls


def run_properties(base: str, platform, arguments: argparse.Namespace) -> bool:
    kube = Kube(platform.kubeconfig)
    token = str.__str__(DemoTokens(platform.endpoint("jwt-server")).token("tenant-a"))
    before = foreign(kube)
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "hooks.py").write_text(HOOKS)
        command = [
            str(Path(sys.executable).parent / "schemathesis"), "run", f"{base}/api/openapi.json",
            "--header", f"Authorization: Bearer {token}", "--max-examples", str(arguments.examples),
            "--checks", CHECKS, "--phases", "examples,coverage,fuzzing", "--workers", "2", "--no-color",
            "--request-timeout", "30", "--suppress-health-check", "all", "--max-failures", "20",
        ]  # fmt: skip
        env = {**os.environ, "SCHEMATHESIS_HOOKS": "hooks", "PYTHONPATH": folder}
        done = subprocess.run(command, cwd=folder, env=env, capture_output=True, text=True, check=False)
    print((done.stdout + done.stderr).replace(token, "$TOKEN"))
    changed = sorted(before.items() ^ foreign(kube).items())
    print(f"objects of other tenants that changed: {changed or 'none'}")
    return done.returncode == 0 and not changed


def foreign(kube: Kube) -> dict[str, str]:
    """What is not tenant A's, and its version."""
    kinds = ("service", "httproute", "aigatewayroute", "securitypolicy", "publishedmodel", "inferenceservice")
    found = {}
    for kind, space in itertools.product(kinds, ("tenant-b", "tenant-c")):
        for item in kube.list(kind, space).items:
            found[f"{kind} {space}/{item['metadata']['name']}"] = json.dumps(item["spec"])
    return found


RUNS = {"load": run_load, "rough": run_rough, "properties": run_properties}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=RUNS)
    parser.add_argument("--instance", default="default", help="of the running local platform")
    parser.add_argument("--rate", type=int, default=500, help="requests a second (load)")
    parser.add_argument("--seconds", type=float, default=20, help="how long (load)")
    parser.add_argument("--examples", type=int, default=40, help="at most, for each operation and phase (properties)")
    arguments = parser.parse_args()
    platform = attach(arguments.instance)
    run = RUNS[arguments.what]
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="inferencebox-")))
        base, arguments.pid = stack.enter_context(service(platform, folder))
        return 0 if run(base, platform, arguments) else 1


if __name__ == "__main__":
    sys.exit(main())
