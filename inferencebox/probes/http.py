"""One HTTP/1.1 request as a value, and what came back as a value.

A `Call` is a probe: calling it sends it once and gives an `Observation`. The request target goes out byte for byte
(httpcore and h11 do not normalise it; httpx and curl would), headers go out in the given order, case and number. A
transport failure is an observation too (`Transport`), never an exception: it is no verdict of the platform's.

Where the texts of refusals come from: Envoy's `source/common/jwt/status.cc` ("Jwt ...", "Jwks ..."), its RBAC filter
("RBAC: access denied"), its router ("no healthy upstream", "upstream request timeout", "upstream connect error ..."),
its filters `local_ratelimit` ("local_rate_limited") and `api_key_auth.cc` ("Client authentication failed.", "Client is
forbidden."), and the default route of Envoy AI Gateway ("No matching route found. ...").
"""

import json as jsonlib
import re
import shlex
import socket
import ssl
import threading
import time
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import StrEnum
from functools import lru_cache
from pathlib import Path
from typing import Any

import httpcore
import httpx

from inferencebox import evidence
from inferencebox.errors import SetupProblem
from inferencebox.platform import Endpoint, Platform, Workload

Headers = Mapping[str, str] | Sequence[tuple[str, str]]

KEEPALIVE_SECONDS = 4.0
KEPT_CONNECTIONS = 8
"""Of each thread, to each kind of entrance."""
REFUSED_BY = "x-refused-by"
READ_LIMIT = 64 * 1024 * 1024


class Transport(StrEnum):
    """How a request failed below HTTP."""

    REFUSED = "refused"  # nothing listens there, or no way leads there
    RESET = "reset"  # the connection was dropped (RST or FIN) before any reply
    CLOSED = "closed"  # the connection was dropped in the middle of a reply
    TIMEOUT = "timeout"
    TLS = "tls"
    DNS = "dns"


@dataclass(frozen=True)
class Observation:
    """What one sending of a `Call` gave. With `error` set, `status` is that of a reply that broke off, or None."""

    status: int | None
    headers: httpx.Headers = field(default_factory=httpx.Headers)
    body: bytes = b""
    elapsed: float = 0.0
    error: Transport | None = None
    detail: str = ""
    request_id: str = ""
    asked: str = ""
    arrivals: tuple[tuple[float, int], ...] = ()
    """(seconds after sending, bytes) of each piece of the body, as it arrived."""

    @property
    def text(self) -> str:
        return self.body.decode("utf-8", "replace")

    def json(self) -> Any:
        return jsonlib.loads(self.body)

    @property
    def cause(self) -> str | None:
        """Why it was refused, read from the reply: jwt, audience, rbac, ratelimit, route, ... (see `explain`)."""
        return None if self.status is None else explain(self.status, self.headers, self.body)

    @property
    def tier(self) -> str | None:
        """Who wrote the reply: tier-1, tier-2, model, or None without a reply."""
        return None if self.status is None else author(self.headers)

    @property
    def pod(self) -> str | None:
        return _first(self.headers, "x-pod")

    @property
    def model_version(self) -> str | None:
        return _first(self.headers, "x-model-version")

    def __str__(self) -> str:
        """One line for reasons: `403 by rbac at tier-1`, `200 from pod iris-v1-0`, `no reply: refused (...)`."""
        if self.error:
            what = f"{self.status} and then" if self.status else "no reply:"
            return f"{what} {self.error.value}" + (f" ({self.detail})" if self.detail else "")
        if self.pod:
            return f"{self.status} from pod {self.pod}"
        cause = f" by {self.cause}" if self.cause else ""
        return f"{self.status}{cause} at {self.tier}"


def _first(headers: httpx.Headers, name: str) -> str | None:
    return next(iter(headers.get_list(name)), None)


def author(headers: httpx.Headers) -> str:
    """Who wrote a reply.

    Models (ours) name their pod. Envoy's router adds `x-envoy-upstream-service-time` to what came from further up, so
    tier-1 itself wrote what has none; unless Istio signed it (`server: istio-envoy`), as when tier-2 was asked itself.
    A refusal by tier 1's external authorization has the headers of who judged, our management service; it says so.
    """
    if "x-pod" in headers:
        return "model"
    if REFUSED_BY in headers:
        return "tier-1"
    if "x-envoy-upstream-service-time" in headers or headers.get("server") == "istio-envoy":
        return "tier-2"
    return "tier-1"


_API_KEY_TEXTS = ("Client authentication failed", "Client is forbidden")
_Rule = tuple[str, Callable[[int, httpx.Headers, str], bool]]
_RULES: tuple[_Rule, ...] = (
    ("cors", lambda s, h, b: "access-control-allow-methods" in h and not b),
    ("audience", lambda s, h, b: b.startswith("Audiences in Jwt are not allowed")),
    ("jwt", lambda s, h, b: b.startswith(("Jwt ", "Jwks "))),
    ("rbac", lambda s, h, b: s == 403 and b.startswith("RBAC: access denied")),
    ("api-key", lambda s, h, b: h.get(REFUSED_BY) == "api-key" or b.startswith(_API_KEY_TEXTS)),
    ("ratelimit", lambda s, h, b: s == 429 and ("x-envoy-ratelimited" in h or "local_rate_limited" in b)),
    ("overload", lambda s, h, b: s == 503 and ("x-envoy-overloaded" in h or "reset reason: overflow" in b)),
    ("no-healthy-upstream", lambda s, h, b: s == 503 and b.startswith("no healthy upstream")),
    ("upstream-connect", lambda s, h, b: s == 503 and b.startswith("upstream connect error")),
    ("timeout", lambda s, h, b: s == 504 and b.startswith(("upstream request timeout", "stream timeout"))),
    ("route", lambda s, h, b: s == 404 and (not b or b.startswith("No matching route found"))),
    ("no-backend", lambda s, h, b: s == 500 and not b),
)


def explain(status: int, headers: httpx.Headers, body: bytes) -> str | None:
    """The cause a gateway or sidecar gives in its own reply; None when a model answered or the reply names no cause."""
    if "x-pod" in headers:
        return None
    text = _error_text(body)
    return next((cause for cause, matches in _RULES if matches(status, headers, text)), None)


def _error_text(body: bytes) -> str:
    """The text of a refusal: the body, or the message inside an OpenAI-style error object."""
    text = body[:4096].decode("utf-8", "replace").strip()
    if not text.startswith("{"):
        return text
    try:
        error = jsonlib.loads(body).get("error")
    except ValueError:
        return text
    message = error.get("message") if isinstance(error, dict) else error
    return message if isinstance(message, str) else text


@dataclass(frozen=True, repr=False)
class Call:
    """One HTTP request; calling it sends it once.

    Args:
        path: the request target, sent raw, byte for byte (a query is part of it).
        headers: pairs (or a mapping), sent in this order, case and number.
        json: sent as a JSON body; `body` sends bytes as they are.
        token: adds `Authorization: Bearer <token>`.
        host: the Host header; default the endpoint's.
        ca: certificate authority file for https; default the system's. `insecure` verifies nothing.
        identity: PEM file with a client's certificate and its key, shown in the TLS handshake.
        sni: server name in the TLS handshake; default the endpoint's host.
        timeout: seconds for connecting, and for the whole reply.
        fresh: on a connection of its own.
        retry_transport: send again up to so many times after a transport failure; a reply is never retried.
        name: what the story calls it.
        quiet: not told to the evidence (streams report a summary instead).
    """

    method: str
    endpoint: Endpoint
    path: str
    headers: Headers = ()
    json: object = None
    body: bytes | None = None
    token: str | None = None
    host: str | None = None
    timeout: float = 10.0
    ca: Path | None = None
    identity: Path | None = None
    sni: str | None = None
    insecure: bool = False
    fresh: bool = False
    retry_transport: int = 0
    name: str = ""
    quiet: bool = False

    def __post_init__(self) -> None:
        given = self.headers.items() if isinstance(self.headers, Mapping) else self.headers
        object.__setattr__(self, "headers", tuple(given))

    @property
    def pairs(self) -> tuple[tuple[str, str], ...]:
        """The headers given, as pairs."""
        return tuple(self.headers)  # type: ignore[arg-type]  # __post_init__ made pairs of it

    def with_(self, **changes: Any) -> "Call":
        """A copy with these fields replaced (`headers=` replaces all headers given before; see `adding`)."""
        return replace(self, **changes)

    def adding(self, *pairs: tuple[str, str]) -> "Call":
        """A copy with these headers sent after the ones it has."""
        return replace(self, headers=(*self.pairs, *pairs))

    def called(self, name: str) -> "Call":
        return replace(self, name=name)

    def __str__(self) -> str:
        return self.name or f"{self.method} {_hide_in_path(self.path)}"

    def __repr__(self) -> str:
        """Without headers and body, which may carry secrets: assertion messages show it."""
        return f"<Call {self} at {self.endpoint.url}>"

    @property
    def content(self) -> bytes:
        if self.body is not None:
            return self.body
        return b"" if self.json is None else jsonlib.dumps(self.json).encode()

    def wire_headers(self, request_id: str) -> list[tuple[str, str]]:
        """The headers as sent: what was given, and before it what HTTP needs and was not given."""
        given = {name.lower() for name, _ in self.pairs}
        wanted = {
            "host": self.host or f"{self.endpoint.host}:{self.endpoint.port}",
            "user-agent": "inferencebox",
            "accept": "*/*",
            "x-request-id": request_id,
        }
        if self.json is not None:
            wanted["content-type"] = "application/json"
        if self.content or self.method in ("POST", "PUT", "PATCH"):
            wanted["content-length"] = str(len(self.content))
        if self.token is not None:
            wanted["authorization"] = f"Bearer {self.token}".rstrip()
        return [(name, value) for name, value in wanted.items() if name not in given] + list(self.pairs)

    def request_id(self) -> str:
        """The id given in the headers, or a new one."""
        return next((v for n, v in self.pairs if n.lower() == "x-request-id"), "") or str(uuid.uuid4())

    def __call__(self) -> Observation:
        """Send it; again only after transport failures and only as often as `retry_transport` says."""
        return _send_and_tell(self, lambda request_id: _exchange(self, request_id), self.as_curl())

    def within(self, platform: Platform, workload: Workload) -> "CallWithin":
        """The same request, sent by curl from inside a replica."""
        return CallWithin(self, platform, workload)

    def beside(self, platform: Platform) -> "CallWithin":
        """The same request, sent by curl from the platform's network but from no workload, and outside the mesh."""
        return CallWithin(self, platform, None)

    def as_curl(self) -> str:
        """What a person could type; secrets are $TOKEN and $API_KEY."""
        shown = [(n, _hide(n, v)) for n, v in self.wire_headers("") if n not in _IMPLIED and (n != "host" or self.host)]
        words = ["curl", "-i", "--path-as-is", *([] if self.method == "GET" else ["-X", self.method])]
        words += [w for n, v in shown for w in ("-H", f"{n}: {v}")]
        if self.content:
            words += ["--data-binary", self.content[:2000].decode("utf-8", "replace")]
        if self.endpoint.scheme == "https":
            words += _tls_options(self)
        return " ".join(_quote(w) for w in [*words, _hide_in_path(_curl_url(self))])


_IMPLIED = {"user-agent", "accept", "x-request-id", "content-length"}
_SECRET_HEADERS = {"authorization", "x-api-key", "api-key", "cookie"}
_SECRET_QUERY = re.compile(r"((?:access_token|token|api_?key)=)[^&\s]+", re.IGNORECASE)


def _hide(name: str, value: str) -> str:
    if name.lower() == "authorization":
        scheme, separator, rest = value.partition(" ")
        return f"{scheme} $TOKEN" if separator and rest else "$TOKEN" if value else value
    if name.lower() in _SECRET_HEADERS:
        return "$API_KEY"
    return value


def _hide_in_path(path: str) -> str:
    return _SECRET_QUERY.sub(r"\1$TOKEN", path)


def _quote(word: str) -> str:
    """Shell quoting that leaves $TOKEN and $API_KEY to the shell."""
    if "$TOKEN" in word or "$API_KEY" in word:
        return '"' + word.replace("\\", "\\\\").replace('"', '\\"').replace("`", "\\`") + '"'
    return shlex.quote(word)


def _send_and_tell(call: Call, send: Callable[[str], Observation], command: str) -> Observation:
    for attempt in range(call.retry_transport + 1):
        request_id = call.request_id()
        observation = replace(send(request_id), request_id=request_id, asked=str(call))
        if not call.quiet:
            evidence.exchange(_request_facts(call, request_id), _reply_facts(observation), command)
        if observation.error is None or attempt == call.retry_transport:
            break
    return observation


def _request_facts(call: Call, request_id: str) -> dict[str, object]:
    return {
        "name": str(call),
        "method": call.method,
        "url": _hide_in_path(call.endpoint.url + call.path),
        "headers": [(n, _hide(n, v)) for n, v in call.wire_headers(request_id)],
        "body": call.content.decode("utf-8", "replace"),
    }


def _reply_facts(seen: Observation) -> dict[str, object]:
    return {
        "status": seen.status,
        "summary": str(seen),
        "headers": list(seen.headers.multi_items()),
        "body": seen.text,
        "elapsed": round(seen.elapsed, 4),
        "error": seen.error.value if seen.error else None,
        "detail": seen.detail,
    }


# --- sending from this process --------------------------------------------------------------------------------------


class _Pools(threading.local):
    """Connections that are kept, each thread's own.

    A pool that hundreds of threads share looks through all of its connections under one lock, which would count as the
    platform's time, and closes them under others' hands.
    """

    def __init__(self) -> None:
        self.by_key: dict[object, httpcore.ConnectionPool] = {}


_pools = _Pools()


@lru_cache(maxsize=64)
def _tls_context(ca: Path | None, changed: int, insecure: bool, identity: Path | None) -> ssl.SSLContext:
    context = ssl.create_default_context(cafile=str(ca) if ca else None)
    if identity:
        context.load_cert_chain(identity)
    if insecure:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    return context


def _context_of(call: Call) -> ssl.SSLContext | None:
    if call.endpoint.scheme != "https":
        return None
    if call.ca and not call.ca.is_file():
        raise SetupProblem(f"the certificate authority {call.ca} is not there", "bring the platform up again")
    return _tls_context(call.ca, call.ca.stat().st_mtime_ns if call.ca else 0, call.insecure, call.identity)


def _new_pool(context: ssl.SSLContext | None, keep: int) -> httpcore.ConnectionPool:
    return httpcore.ConnectionPool(
        ssl_context=context,
        max_connections=None,
        max_keepalive_connections=keep,
        keepalive_expiry=KEEPALIVE_SECONDS,
        http2=False,
        retries=0,
    )


def _own_pool(call: Call) -> httpcore.ConnectionPool:
    context = _context_of(call)
    key = (context, call.sni)
    if key not in _pools.by_key:
        _pools.by_key[key] = _new_pool(context, keep=KEPT_CONNECTIONS)
    return _pools.by_key[key]


def _exchange(call: Call, request_id: str) -> Observation:
    if not call.fresh:
        return _exchange_over(_own_pool(call), call, request_id)
    with _new_pool(_context_of(call), keep=0) as pool:
        return _exchange_over(pool, call, request_id)


def _as_request(call: Call, request_id: str) -> httpcore.Request:
    limits = dict.fromkeys(("connect", "read", "write", "pool"), call.timeout)
    extensions: dict[str, Any] = {"timeout": limits}
    if call.sni:
        extensions["sni_hostname"] = call.sni
    url = httpcore.URL(
        scheme=call.endpoint.scheme, host=call.endpoint.host, port=call.endpoint.port, target=call.path.encode()
    )
    headers = [(n.encode("latin-1"), v.encode("latin-1")) for n, v in call.wire_headers(request_id)]
    return httpcore.Request(call.method, url, headers=headers, content=call.content, extensions=extensions)


class _Reply:
    """A reply as it grows, so that a broken one can be told as far as it came."""

    def __init__(self) -> None:
        self.started = time.monotonic()
        self.status: int | None = None
        self.headers = httpx.Headers()
        self.pieces: list[bytes] = []
        self.arrivals: list[tuple[float, int]] = []

    def read(self, response: httpcore.Response, deadline: float) -> None:
        self.status = response.status
        self.headers = httpx.Headers(response.headers)
        size = 0
        for piece in response.iter_stream():
            self.pieces.append(piece)
            self.arrivals.append((time.monotonic() - self.started, len(piece)))
            size += len(piece)
            if time.monotonic() > deadline:
                raise httpcore.ReadTimeout("the reply did not end in time")
            if size > READ_LIMIT:
                raise httpcore.ReadError(f"the reply is longer than {READ_LIMIT} bytes")

    def observed(self, error: Transport | None = None, detail: str = "") -> Observation:
        return Observation(
            self.status,
            self.headers,
            b"".join(self.pieces),
            time.monotonic() - self.started,
            error,
            detail,
            arrivals=tuple(self.arrivals),
        )


def _exchange_over(pool: httpcore.ConnectionPool, call: Call, request_id: str) -> Observation:
    request = _as_request(call, request_id)
    reply = _Reply()
    try:
        response = pool.handle_request(request)
        try:
            reply.read(response, reply.started + call.timeout)
        finally:
            response.close()
    except httpcore.LocalProtocolError as problem:
        raise ValueError(f"{call} cannot be sent as HTTP/1.1: {problem}") from problem
    except (httpcore.TimeoutException, httpcore.NetworkError, httpcore.RemoteProtocolError) as problem:
        return reply.observed(_transport(problem, reply.status is not None), str(problem) or type(problem).__name__)
    return reply.observed()


def _roots(problem: BaseException | None) -> Iterator[BaseException]:
    while problem is not None:
        yield problem
        problem = problem.__cause__ or problem.__context__


def _transport(problem: Exception, begun: bool) -> Transport:
    """Which `Transport` an httpcore exception stands for, by the operating system's error beneath it."""
    if isinstance(problem, httpcore.TimeoutException):
        return Transport.TIMEOUT
    for root in _roots(problem):
        if isinstance(root, socket.gaierror):
            return Transport.DNS
        if isinstance(root, ssl.SSLError):
            return Transport.TLS
    if begun:
        return Transport.CLOSED
    dropped = any(isinstance(root, ConnectionResetError) for root in _roots(problem))
    return Transport.REFUSED if isinstance(problem, httpcore.ConnectError) and not dropped else Transport.RESET


def quietly(probe: Callable[[], Observation]) -> Callable[[], Observation]:
    """The same probe, not told to the evidence: streams and bursts report a summary instead."""
    if isinstance(probe, Call):
        return probe.with_(quiet=True)
    if isinstance(probe, CallWithin):
        return replace(probe, call=probe.call.with_(quiet=True))
    return probe


# --- sending from inside a replica ----------------------------------------------------------------------------------

_CURL_EXITS = {
    6: Transport.DNS,
    7: Transport.REFUSED,
    18: Transport.CLOSED,
    28: Transport.TIMEOUT,
    35: Transport.TLS,
    52: Transport.RESET,
    55: Transport.RESET,
    56: Transport.RESET,
    60: Transport.TLS,
}
_MARK = b"\n--inferencebox-curl--\n"


@dataclass(frozen=True)
class CallWithin:
    """A `Call` that curl sends from inside a replica, or without one from beside them: what `Call.within` gives."""

    call: Call
    platform: Platform
    workload: Workload | None

    def __str__(self) -> str:
        return f"{self.call} from {self._place}"

    @property
    def _place(self) -> str:
        return f"{self.workload.namespace}/{self.workload.name}" if self.workload else "beside the workloads"

    def __call__(self) -> Observation:
        return _send_and_tell(self.call.called(str(self)), self._send, self.as_curl())

    def as_curl(self) -> str:
        """The command as kubectl would run it in the pod."""
        if self.workload is None:
            return f"{self.call.as_curl()}  # {self._place}"
        return f"kubectl exec -n {self.workload.namespace} {self.workload.name} -- {self.call.as_curl()}"

    def _send(self, request_id: str) -> Observation:
        argv = curl_argv(self.call, request_id)
        limit = self.call.timeout + 15
        if self.workload is None:
            done = self.platform.run_beside(argv, stdin=self.call.content, timeout=limit)
        else:
            done = self.platform.run_in(self.workload, argv, stdin=self.call.content, timeout=limit)
        return read_curl(done.returncode, done.stdout, done.stderr)


def _curl_url(call: Call) -> str:
    host = call.sni if call.sni and call.endpoint.scheme == "https" else call.endpoint.host
    return f"{call.endpoint.scheme}://{host}:{call.endpoint.port}{call.path}"


def _tls_options(call: Call) -> list[str]:
    words = ["-k"] if call.insecure else ["--cacert", str(call.ca)] if call.ca else []
    words += ["--cert", str(call.identity)] if call.identity else []
    if not call.sni:
        return words
    return [*words, "--connect-to", f"{call.sni}:{call.endpoint.port}:{call.endpoint.host}:{call.endpoint.port}"]


def curl_argv(call: Call, request_id: str) -> list[str]:
    """The curl command that sends exactly this call and writes head, body, mark and facts to its output."""
    argv = ["curl", "-s", "-S", "-i", "--http1.1", "--noproxy", "*", "--path-as-is", "--request-target", call.path]
    argv += ["-X", call.method, "--max-time", f"{call.timeout:g}", "-w", _MARK.decode() + "%{json}", "-H", "Expect:"]
    for name, value in call.wire_headers(request_id):
        if name != "content-length":
            argv += ["-H", f"{name}: {value}" if value else f"{name};"]
    if call.content:
        argv += ["--data-binary", "@-"]
    if call.method == "HEAD":
        argv += ["--head"]
    if call.endpoint.scheme == "https":
        argv += _tls_options(call)
    return [*argv, "-g", f"{_curl_url(call.with_(path=''))}/"]


def read_curl(exit_code: int, stdout: bytes, stderr: bytes) -> Observation:
    """What curl saw, read from the output that `curl_argv` asks for."""
    message = stderr.decode("utf-8", "replace").strip()
    reply, mark, facts = stdout.rpartition(_MARK)
    if not mark or (exit_code != 0 and exit_code not in _CURL_EXITS):
        raise SetupProblem(
            f"curl could not be run inside the workload (exit {exit_code}: {message[:200]})",
            "see that the workload is running and its image has curl",
        )
    told = jsonlib.loads(facts)
    head, body = reply[: told["size_header"]], reply[told["size_header"] :]
    error = _CURL_EXITS.get(exit_code)
    status = int(told["http_code"]) or None
    if error is Transport.RESET and status:
        error = Transport.CLOSED
    return Observation(status, _last_head(head), body, float(told["time_total"]), error, message if error else "")


def _last_head(head: bytes) -> httpx.Headers:
    """The header block of the final reply (interim 1xx replies come before it)."""
    blocks = [block for block in head.split(b"\r\n\r\n") if block]
    lines = blocks[-1].split(b"\r\n")[1:] if blocks else []
    split = (line.partition(b":") for line in lines if b":" in line)
    return httpx.Headers([(name.strip(), value.strip()) for name, _, value in split])
