import asyncio
import json
import signal
import socket
import subprocess
import sys
import time

import httpx
import openai
import pytest
from conftest import started

from model_server import stub

CHAT = {"model": "m", "messages": [{"role": "user", "content": "Good morning, model!"}]}


@pytest.fixture(scope="module")
def server():
    with started("model_server.stub", "--version", "v7", "--pod", "pod-1") as server:
        yield server


@pytest.fixture
def model(server):
    server.control.delete("/faults")
    server.control.delete("/arrivals")
    return server.model


@pytest.fixture
def control(server):
    return server.control


class TestPredictions:
    def test_iris_flowers_get_a_class_each(self, model):
        reply = model.post("/v1/models/any:predict", json={"instances": [[5.1, 3.5, 1.4, 0.2], [6.8, 2.8, 4.8, 1.4]]})
        assert reply.json() == {"predictions": [0, 1]}

    def test_an_image_gets_a_class_and_probabilities(self, model):
        (answer,) = model.post("/v1/models/any:predict", json={"instances": [[[1.0] * 8] * 8]}).json()["predictions"]
        assert answer["class"] == 4
        assert sum(answer["probabilities"]) == pytest.approx(1)

    def test_v2_infers_the_same(self, model):
        tensor = {"name": "x", "shape": [2, 4], "datatype": "FP32", "data": [5.1, 3.5, 1.4, 0.2, 6.8, 2.8, 4.8, 1.4]}
        reply = model.post("/v2/models/any/infer", json={"inputs": [tensor]}).json()
        assert reply["model_name"] == "any"
        assert reply["outputs"] == [{"name": "output-0", "shape": [2], "datatype": "INT64", "data": [0, 1]}]

    def test_it_is_ready(self, model):
        assert model.get("/v2/health/ready").json() == {"ready": True}
        assert model.get("/v1/models/any").json() == {"name": "any", "ready": True}

    @pytest.mark.parametrize(
        "body",
        [
            "{broken",
            "[]",
            "{}",
            '{"instances": 1}',
            '{"instances": []}',
            '{"instances": [[1]]}',
            '{"instances": [["a"]]}',
            "[" * 100_000,
        ],
    )
    def test_bad_input_is_the_callers_mistake(self, model, body):
        reply = model.post("/v1/models/any:predict", content=body)
        assert reply.status_code == 400
        assert reply.json().keys() == {"error"}

    @pytest.mark.parametrize("shape", [[2, 4], [], [0, 4], [-1, 4], ["4"], None])
    def test_a_v2_shape_that_does_not_fit_is_the_callers_mistake(self, model, shape):
        tensor = {"name": "x", "shape": shape, "datatype": "FP32", "data": [1, 2, 3, 4]}
        assert model.post("/v2/models/any/infer", json={"inputs": [tensor]}).status_code == 400

    def test_a_huge_body_is_refused(self, model):
        assert model.post("/v1/models/any:predict", content=b"x" * 9_000_000).status_code == 413
        assert model.post("/v1/models/any:predict", content=iter([b"x" * 1_000_000] * 9)).status_code == 413
        assert model.get("/v2/health/ready").status_code == 200


class TestNames:
    def test_with_names_given_other_models_are_unknown(self):
        with started("model_server.stub", "--name", "one", "--name", "two") as server:
            assert server.model.get("/v1/models/two").status_code == 200
            reply = server.model.get("/v1/models/three")
            assert reply.status_code == 404
            assert reply.json() == {"error": "Model with name three does not exist."}
            assert [card["id"] for card in server.model.get("/v1/models").json()["data"]] == ["one", "two"]
            assert server.model.post("/v1/chat/completions", json=CHAT).status_code == 404


class TestOpenAI:
    def test_a_chat_counts_its_tokens(self, model):
        reply = model.post("/v1/chat/completions", json=CHAT).json()
        assert reply["object"] == "chat.completion"
        assert reply["choices"][0]["message"]["content"].endswith("It was told: Good morning, model!")
        assert reply["usage"] == {"prompt_tokens": 5, "completion_tokens": 15, "total_tokens": 20}

    def test_a_stream_ends_with_usage_and_done(self, model):
        wanted = CHAT | {"stream": True, "stream_options": {"include_usage": True}, "max_tokens": 2}
        reply = model.post("/v1/chat/completions", json=wanted)
        assert reply.headers["content-type"].startswith("text/event-stream")
        *events, done = [line.removeprefix("data: ") for line in reply.text.split("\n\n") if line]
        assert done == "[DONE]"
        *chunks, usage = map(json.loads, events)
        assert usage["choices"] == []
        assert usage["usage"]["completion_tokens"] == 2
        assert "".join(chunk["choices"][0]["delta"].get("content", "") for chunk in chunks) == "This is"
        assert chunks[-1]["choices"][0]["finish_reason"] == "length"

    def test_stop_cuts_the_answer(self, model):
        reply = model.post("/v1/chat/completions", json=CHAT | {"stop": ["stub mo"]}).json()
        assert reply["choices"][0] | {"logprobs": None} == {
            "index": 0,
            "message": {"role": "assistant", "content": "This is the ", "refusal": None},
            "logprobs": None,
            "finish_reason": "stop",
        }

    def test_the_official_client_works(self, server):
        client = openai.OpenAI(base_url=f"{server.urls[0]}/v1", api_key="none", max_retries=0)
        assert client.models.list().data[0].id == "stub"
        chunks = client.chat.completions.create(**CHAT, stream=True)
        assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks).startswith("This is")
        vectors = client.embeddings.create(model="m", input=["one", "two"]).data
        assert [len(one.embedding) for one in vectors] == [64, 64]

    @pytest.mark.parametrize(
        ("change", "param"),
        [
            ({"model": None}, "model"),
            ({"messages": []}, "messages"),
            ({"messages": [{"content": "x"}]}, "messages[0]"),
            ({"messages": [{"role": "user", "content": 1}]}, "messages[0].content"),
            ({"max_tokens": 0}, "max_tokens"),
            ({"temperature": "hot"}, "temperature"),
            ({"n": 2}, "n"),
            ({"stop": [""]}, "stop"),
            ({"stream": "yes"}, "stream"),
            ({"messages": [{"role": "user", "content": "x " * 9000}]}, "messages"),
        ],
    )
    def test_bad_input_is_told_the_openai_way(self, model, change, param):
        reply = model.post("/v1/chat/completions", json=CHAT | change)
        assert reply.status_code == 400
        error = reply.json()["error"]
        assert error.keys() == {"message", "type", "param", "code"}
        assert (error["type"], error["param"]) == ("invalid_request_error", param)

    def test_broken_json_is_told_the_openai_way(self, model):
        reply = model.post("/v1/embeddings", content="{broken")
        assert reply.status_code == 400
        assert reply.json()["error"]["type"] == "invalid_request_error"


class TestEcho:
    def test_it_shows_every_header_even_twice(self, model):
        reply = model.request("PATCH", "/echo?a=1", headers=[("x-a", "1"), ("X-A", "2")], content="hello").json()
        assert [pair for pair in reply["headers"] if pair[0] == "x-a"] == [["x-a", "1"], ["x-a", "2"]]
        assert (reply["method"], reply["path"], reply["query"], reply["body"]) == ("PATCH", "/echo", "a=1", "hello")

    def test_any_path_can_be_echoed(self, model):
        reply = model.post("/v1/models/any:predict", json={"instances": [1]}, headers={"x-stub-echo": "1"}).json()
        assert (reply["path"], reply["body"]) == ("/v1/models/any:predict", '{"instances":[1]}')


class TestFaults:
    def test_every_reply_says_who_wrote_it(self, model):
        for path in ("/v2/health/ready", "/nowhere"):
            headers = model.get(path).headers
            assert (headers["x-model-version"], headers["x-pod"]) == ("v7", "pod-1")

    def test_a_status_can_be_asked_for(self, model):
        assert model.get("/v2", headers={"x-stub-status": "418"}).status_code == 418

    def test_the_first_attempts_fail_and_are_counted(self, model):
        replies = [model.get("/v2", headers={"x-stub-fail-n": "2", "x-request-id": "r"}) for _ in range(3)]
        assert [reply.status_code for reply in replies] == [503, 503, 200]
        assert [reply.headers["x-stub-attempt"] for reply in replies] == ["1", "2", "3"]

    def test_attempts_are_counted_per_key(self, model):
        headers = {"x-stub-fail-n": "1", "x-stub-key": "k"}
        replies = [model.get("/v2", headers=headers | {"x-request-id": name}) for name in "ab"]
        assert [reply.status_code for reply in replies] == [503, 200]

    @pytest.mark.parametrize("headers", [{"x-stub-delay-ms": "-1"}, {"x-stub-status": "99"}, {"x-stub-fail-n": "1"}])
    def test_a_fault_that_makes_no_sense_is_said_so(self, model, headers):
        assert model.get("/v2", headers=headers).status_code == 400

    def test_delayed_requests_overlap(self, server, model, control):
        async def all_at_once():
            limits = httpx.Limits(max_connections=300)
            async with httpx.AsyncClient(base_url=server.urls[0], limits=limits, timeout=20) as client:
                sent = [client.get("/v2", headers={"x-stub-delay-ms": "2000"}) for _ in range(300)]
                return {reply.status_code for reply in await asyncio.gather(*sent)}

        control.delete("/concurrency")
        assert asyncio.run(all_at_once()) == {200}
        assert control.get("/concurrency").json() == {"now": 0, "peak": 300, "total": 300}

    def test_a_stream_can_be_paced(self, model):
        wanted = CHAT | {"stream": True, "max_tokens": 3}
        moments = []
        headers = {"x-stub-pace-ms": "100"}
        with model.stream("POST", "/v1/chat/completions", json=wanted, headers=headers) as reply:
            for _ in reply.iter_raw():
                moments.append(time.monotonic())
        assert 0.4 < moments[-1] - moments[0] < 3

    def test_a_client_that_gives_up_is_not_counted_any_longer(self, model, control):
        with pytest.raises(httpx.ReadTimeout):
            model.get("/v2", headers={"x-stub-delay-ms": "60000"}, timeout=0.2)
        time.sleep(0.1)
        assert control.get("/concurrency").json()["now"] == 0


class TestControlPort:
    def test_it_lists_what_arrived_but_no_credentials(self, model, control):
        headers = {"x-probe": "p1", "x-jwt-sub": "user-a", "x-request-id": "r1", "authorization": "Bearer secret"}
        model.get("/v2", headers=headers)
        model.get("/v2", headers={"x-probe": "p2"})
        reply = control.get("/arrivals", params={"probe": "p1"})
        (arrival,) = reply.json()
        assert (arrival["method"], arrival["path"], arrival["request_id"]) == ("GET", "/v2", "r1")
        assert arrival["headers"]["x-jwt-sub"] == "user-a"
        assert arrival["authorization"] is True
        assert "secret" not in reply.text

    def test_arrivals_can_be_chosen_by_time_and_path_and_forgotten(self, model, control):
        model.get("/v2")
        model.get("/echo")
        assert [one["path"] for one in control.get("/arrivals", params={"path": "/echo"}).json()] == ["/echo"]
        assert control.get("/arrivals", params={"since": time.time()}).json() == []
        assert control.delete("/arrivals").status_code == 204
        assert control.get("/arrivals").json() == []

    def test_faults_for_everybody_spare_the_health_checks(self, model, control):
        control.put("/faults", json={"status": 500})
        assert model.get("/v2").status_code == 500
        assert model.get("/v2/health/ready").status_code == 200
        control.delete("/faults")
        assert model.get("/v2").status_code == 200

    def test_a_share_of_requests_can_fail(self, model, control):
        control.put("/faults", json={"fail_ratio": 0.5})
        seen = [model.get("/v2").status_code for _ in range(100)]
        assert set(seen) == {200, 503}

    def test_unready_says_so_and_answers_all_the_same(self, model, control):
        control.put("/faults", json={"ready": 0})
        assert model.get("/v2/health/ready").status_code == 503
        assert model.get("/v2/health/live").status_code == 200
        assert model.get("/v2/models/iris").status_code == 200
        control.delete("/faults")
        assert model.get("/v2/health/ready").status_code == 200

    @pytest.mark.parametrize("faults", ["x", "[]", '{"status": 1}', '{"fail_ratio": 2}', '{"dealy_ms": 1}'])
    def test_faults_that_make_no_sense_are_refused(self, control, faults):
        assert control.put("/faults", content=faults).status_code == 400

    def test_it_is_no_part_of_the_models_port(self, model):
        assert model.get("/arrivals").status_code == 404


class TestProcess:
    def test_it_stops_within_two_seconds_even_with_a_request_in_flight(self):
        with started("model_server.stub") as server:
            with pytest.raises(httpx.ReadTimeout):
                server.model.get("/v2", headers={"x-stub-delay-ms": "60000"}, timeout=0.2)
            server.process.send_signal(signal.SIGTERM)
            assert server.process.wait(timeout=2) == 0

    def test_a_port_that_is_taken_is_one_clear_line(self, capsys):
        with socket.create_server(("127.0.0.1", 0)) as taken:
            port = str(taken.getsockname()[1])
            assert stub.main(["--host", "127.0.0.1", "--port", port]) == 2
        assert capsys.readouterr().err.startswith(f"stub-model-server: cannot listen on 127.0.0.1:{port}")

    def test_it_is_light(self):
        heavy = "{'kserve', 'numpy', 'pandas', 'pydantic', 'fastapi'}"
        code = f"import sys, model_server.stub; sys.exit(bool({heavy} & set(sys.modules)))"
        assert subprocess.run([sys.executable, "-c", code]).returncode == 0
