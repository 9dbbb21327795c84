"""Access logs of both tiers, read as one kind of entry."""

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from inferencebox.platform import Platform
from inferencebox.probes.logs import Entry, entries

TIER_1 = {
    "time": "2026-11-21T09:29:39.305Z",
    "request_id": "one",
    "method": "GET",
    "path": "/",
    "status": 200,
    "details": "via_upstream",
    "host": "localhost",
    "upstream": "10.99.0.10:443",
}
TIER_2 = {
    "start_time": "2026-11-21T09:29:39.313Z",
    "request_id": "one",
    "method": "GET",
    "path": "/",
    "response_code": 403,
    "response_code_details": "rbac",
    "authority": "x",
    "upstream_host": None,
}


@pytest.fixture
def platform(tmp_path: Path) -> Platform:
    return cast(Platform, SimpleNamespace(logs=tmp_path))


def write(platform: Platform, name: str, *lines: Any) -> None:
    text = "\n".join(line if isinstance(line, str) else json.dumps(line) for line in lines)
    (platform.logs / name).write_text(text + "\n")


def test_both_tiers_entries_have_the_same_names(platform: Platform) -> None:
    write(platform, "tier-1-access.log", TIER_1)
    write(platform, "istio-system.istio-ingressgateway.proxy.log", TIER_2)
    (first,), (second,) = (entries(platform, tier, "one")() for tier in ("tier-1", "tier-2"))
    assert (first.status, first.details, first.upstream) == (200, "via_upstream", "10.99.0.10:443")
    assert (second.status, second.details, second.upstream) == (403, "rbac", "")
    assert first.at < second.at


def test_other_lines_and_other_requests_are_left_out(platform: Platform) -> None:
    other = {**TIER_1, "request_id": "other", "path": "/one"}
    write(platform, "tier-1-access.log", "starting one", other, '{"request_id": "one"', "[1]", '"one"', TIER_1)
    found = entries(platform, "tier-1", "one")()
    assert [type(entry) for entry in found] == [Entry]
    assert entries(platform, "tier-2", "one")() == []


def test_entries_of_several_replicas_come_in_order_of_time(platform: Platform) -> None:
    write(platform, "istio-ingressgateway-b.log", {**TIER_2, "start_time": "2026-11-21T09:29:40Z"})
    write(platform, "istio-ingressgateway-a.log", {**TIER_2, "start_time": "2026-11-21T09:29:41Z"})
    found = entries(platform, "tier-2", "one")()
    assert [entry.at for entry in found] == sorted(entry.at for entry in found)
    assert len(found) == 2
