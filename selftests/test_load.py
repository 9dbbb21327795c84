"""Load is bounded, and each reply is written down."""

import pytest
from loopback import reply, serving

from inferencebox.load import SECONDS, USERS, load
from inferencebox.probes.http import Call


def test_each_reply_is_counted_by_who_gave_it() -> None:
    def answer(request: bytes) -> bytes:
        assert b"authorization: Bearer secret" in request.replace(b"Authorization", b"authorization")
        status = 503 if b"x-fail" in request else 200
        return reply(status, b"{}", x_pod="p1", x_model_version="v2")

    with serving(answer, keep_alive=True) as server:
        call = Call("POST", server.endpoint, "/predict", json={"instances": [1]}, token="secret")
        seen = load(call, users=2, seconds=1)
        broken = load(call.adding(("x-fail", "1")), users=1, seconds=1)
    assert seen.window.requests > 10
    assert seen.window.errors == 0
    assert seen.window.by_pod == {"p1": seen.window.requests}
    assert seen.window.by_version == {"v2": seen.window.requests}
    assert seen.throughput > 5
    assert broken.window.errors == broken.window.requests > 0
    assert broken.throughput == 0


@pytest.mark.parametrize(("users", "seconds"), [(0, 1), (USERS + 1, 1), (1, 0), (1, SECONDS + 1)])
def test_load_without_bounds_is_refused(users: int, seconds: float) -> None:
    with serving(lambda _: reply(200)) as server, pytest.raises(ValueError, match="bounded"):
        load(Call("GET", server.endpoint, "/"), users, seconds)
