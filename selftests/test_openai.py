"""A streamed reply is read as events, each with the time at which it came."""

import json
import socket
import threading
import time

import pytest
from loopback import read_request, reply, serving

from inferencebox.platform import Endpoint
from inferencebox.probes.http import Call, Observation
from inferencebox.probes.openai import chat, client, read_events


def chunk(text: str) -> bytes:
    return b"data: " + json.dumps({"choices": [{"delta": {"content": text}}]}).encode() + b"\n\n"


def test_events_have_their_times_of_arrival() -> None:
    listener = socket.create_server(("127.0.0.1", 0))

    def serve() -> None:
        connection, _ = listener.accept()
        with connection:
            read_request(connection)
            connection.sendall(
                b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"
            )
            for part in (chunk("Hel")[:9], chunk("Hel")[9:], chunk("lo"), b"data: [DONE]\n\n"):
                connection.sendall(b"%x\r\n%b\r\n" % (len(part), part))
                time.sleep(0.1)
            connection.sendall(b"0\r\n\r\n")

    thread = threading.Thread(target=serve)
    thread.start()
    seen = Call("GET", Endpoint("http", "127.0.0.1", listener.getsockname()[1]), "/")()
    thread.join()
    listener.close()
    events = read_events(seen)
    assert events.text == "Hello"
    assert events.done
    assert events.events[0].at >= 0.1
    assert events.spread == pytest.approx(0.2, abs=0.15)


def test_a_reply_held_back_has_no_spread() -> None:
    with serving(reply(200, chunk("a") + chunk("b") + b"data: [DONE]\n\n")) as server:
        events = read_events(Call("GET", server.endpoint, "/")())
    assert events.spread == 0
    assert (events.text, events.done, len(events.chunks)) == ("ab", True, 2)


@pytest.mark.parametrize("body", [b"", chunk("a"), b"data: [DONE]\n\n" + chunk("a"), b"data: [DONE]\n\n" * 2])
def test_a_stream_that_does_not_end_with_done_once_is_not_done(body: bytes) -> None:
    assert not read_events(Observation(200, body=body)).done


def test_other_line_ends_and_comments_are_understood() -> None:
    body = b": ping\r\n\r\ndata: one\r\ndata: two\r\n\r\nevent: x\r\ndata:[DONE]\r\n\r\n"
    assert [event.data for event in read_events(Observation(200, body=body)).events] == ["one\ntwo", "[DONE]"]


def test_the_official_client_reaches_the_endpoint_unchanged() -> None:
    answer = {
        "id": "1",
        "object": "chat.completion",
        "created": 1,
        "model": "tiny-llm",
        "choices": [{"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": "hi"}}],
    }
    with serving(reply(200, json.dumps(answer).encode(), content_type="application/json")) as server:
        ours = client(server.endpoint, "tok", host="api.example")
        said = ours.chat.completions.create(model="tiny-llm", messages=[{"role": "user", "content": "x"}])
        chat(server.endpoint, "tiny-llm", stream=True, token="tok")()
    assert said.choices[0].message.content == "hi"
    first, second = (request.decode().lower() for request in server.requests)
    assert first.startswith("post /v1/chat/completions ")
    assert "host: api.example" in first
    assert "authorization: bearer tok" in first
    assert '"stream": true' in second
