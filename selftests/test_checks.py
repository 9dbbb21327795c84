"""Checks say nothing when all is well, and otherwise in one line what was wanted and what came."""

from dataclasses import replace
from types import SimpleNamespace

import httpx
import pytest

from inferencebox.checks import (
    Check,
    answered,
    at_least,
    at_most,
    attribute,
    between,
    body_json,
    body_text,
    contains,
    elapsed,
    equals,
    every,
    from_version,
    header,
    length,
    matches,
    no_connection,
    no_header,
    one_of,
    present,
    refused,
    served_by,
    that,
)
from inferencebox.platform import Workload
from inferencebox.probes.http import Observation, Transport


def seen(status: int | None = 200, body: str = "", error: Transport | None = None, **headers: str) -> Observation:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return Observation(status, httpx.Headers(named), body.encode(), error=error)


RBAC = seen(403, "RBAC: access denied")
FROM_POD = seen(200, '{"predictions": [0]}', x_pod="iris-v1-0", x_model_version="v1")
LOST = seen(None, error=Transport.RESET)


@pytest.mark.parametrize(
    ("check", "value", "reason"),
    [
        (answered(), FROM_POD, None),
        (answered(200, 204), seen(204), None),
        (answered(200), RBAC, "wanted 200, got 403 by rbac at tier-1"),
        (answered(200), LOST, "wanted 200, got no reply: reset"),
        (answered(200), replace(FROM_POD, error=Transport.CLOSED), "wanted 200, got 200 and then closed"),
        (refused(403, by="rbac"), RBAC, None),
        (refused(401, 403, by=("jwt", "rbac"), at="tier-1"), RBAC, None),
        (refused(403, by="rbac"), FROM_POD, "wanted 403 by rbac, got 200 from pod iris-v1-0"),
        (refused(403, by="rbac"), seen(404), "wanted 403 by rbac, got 404 by route at tier-1"),
        (
            refused(403, by="rbac"),
            seen(403, "Audiences in Jwt are not allowed"),
            "wanted 403 by rbac, got 403 by audience at tier-1",
        ),
        (refused(403, by="rbac"), seen(403, "no"), "wanted 403 by rbac, got 403 at tier-1 saying 'no'"),
        (
            refused(403, by="rbac", at="tier-2"),
            RBAC,
            "wanted 403 by rbac at tier-2, got 403 by rbac at tier-1",
        ),
        (refused(403), LOST, "wanted 403, got no reply: reset"),
        (no_connection(), LOST, None),
        (no_connection("refused"), LOST, "wanted no connection (refused), got no reply: reset"),
        (no_connection(), RBAC, "wanted no connection, got 403 by rbac at tier-1"),
        (no_connection(), seen(None, error=Transport.DNS), "wanted no connection, got no reply: dns"),
        (served_by("iris"), FROM_POD, None),
        (served_by("iris-v1-0"), FROM_POD, None),
        (served_by("iri"), FROM_POD, "wanted a reply from iri, got 200 from pod iris-v1-0"),
        (served_by(Workload("tenant-a", "iris-v1-0", "iris", "v1", "10.0.0.1")), FROM_POD, None),
        (served_by(SimpleNamespace(pods=["iris-v1-0"])), FROM_POD, None),
        (served_by("tenant-a"), seen(200, x_pod="p", x_pod_namespace="tenant-a"), None),
        (served_by("tenant-a"), RBAC, "wanted a reply from tenant-a, got 403 by rbac at tier-1"),
        (from_version("v2"), FROM_POD, "wanted a reply from version v2, got 200 from pod iris-v1-0"),
        (header("x-pod", "iris-v1-0"), FROM_POD, None),
        (header("x-none", "1"), FROM_POD, "header x-none: wanted '1', got None"),
        (no_header("x-pod"), FROM_POD, "header x-pod: wanted none, got 'iris-v1-0'"),
        (body_json("predictions", equals([0])), FROM_POD, None),
        (body_json("predictions[0]", equals(1)), FROM_POD, "predictions[0]: wanted 1, got 0"),
        (body_json("a.b", equals(1)), FROM_POD, "wanted a.b in the body, got {'predictions': [0]}"),
        (body_json("a", equals(1)), RBAC, "wanted JSON with a, got 403 by rbac at tier-1 saying 'RBAC: access denied'"),
        (body_text(contains("denied")), RBAC, None),
        (elapsed(at_most(1)), FROM_POD, None),
        (equals(0), 1, "wanted 0, got 1"),
        (one_of(1, 2), 3, "wanted one of 1, 2, got 3"),
        (at_most(3), 4, "wanted at most 3, got 4"),
        (at_least(3), None, "wanted at least 3, got None"),
        (between(0.07, 0.13), 0.13, None),
        (between(0.07, 0.13), 0.14, "wanted between 0.07 and 0.13, got 0.14"),
        (matches("^a+$"), "aab", "wanted text like /^a+$/, got 'aab'"),
        (present(), "", "wanted something, got ''"),
        (length(equals(2)), [1], "length: wanted 2, got 1"),
        (every(equals(1)), [1, 2], "item 1: wanted 1, got 2"),
        (every(equals(1)), [], "wanted every item to be 1, got no item"),
        (attribute("errors", equals(0)), SimpleNamespace(errors=2), "errors: wanted 0, got 2"),
        (that("even", lambda n: n % 2 == 0), 3, "wanted even, got 3"),
    ],
    ids=str,
)
def test_the_reason_is_told(check: Check, value: object, reason: str | None) -> None:
    assert check(value) == reason


def test_checks_compose() -> None:
    both = answered(200) & served_by("iris")
    assert both(FROM_POD) is None
    assert both(seen(200)) == "wanted a reply from iris, got 200 at tier-1"
    assert str(both) == "200 and a reply from iris"
    either = refused(403, by="rbac") | no_connection()
    assert either(RBAC) is None
    assert either(LOST) is None
    assert either(FROM_POD) == "wanted refused 403 by rbac or no connection, got 200 from pod iris-v1-0"
    assert (~answered(200))(RBAC) is None
    assert (~answered(200))(FROM_POD) == "wanted not 200, got 200 from pod iris-v1-0"


def test_a_refusal_of_200_is_the_authors_mistake() -> None:
    with pytest.raises(ValueError, match="400 or more"):
        refused(200)


def test_long_values_are_cut_to_one_line() -> None:
    reason = equals(0)("a\n" * 1000)
    assert reason is not None
    assert "\n" not in reason
    assert len(reason) < 230
