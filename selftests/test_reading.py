"""What is stored of a platform is read over a way that may break."""

import httpx
import pytest
from loopback import reply, serving
from tenacity import wait_none

from inferencebox.probes import reading


@pytest.fixture(autouse=True)
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reading.read.retry, "wait", wait_none())


def test_what_a_broken_connection_lost_is_asked_again() -> None:
    replies = iter([None, reply(200, b"{}")])
    with serving(lambda _: next(replies)) as server:
        assert reading.read(f"{server.endpoint.url}/api", query="up").json() == {}
    assert [b"query=up" in request for request in server.requests] == [True, True]


def test_a_connection_that_breaks_each_time_is_an_error() -> None:
    with serving(lambda _: None) as server, pytest.raises(httpx.RemoteProtocolError):
        reading.read(server.endpoint.url)
    assert len(server.requests) == reading.ATTEMPTS


def test_a_refusal_is_an_answer_and_is_asked_for_once() -> None:
    with serving(reply(503)) as server:
        assert reading.read(server.endpoint.url).status_code == 503
    assert len(server.requests) == 1
