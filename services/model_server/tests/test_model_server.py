import gzip
import json
import math
import queue
import re
import shutil
import subprocess
import sys
import threading
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer

import openai
import pytest
from conftest import started

pytest.importorskip("kserve", reason="install model-server[models]")

FLOWERS = [[6.8, 2.8, 4.8, 1.4], [6.0, 3.4, 4.5, 1.6]]
PICTURE = [[0, 0, 0, 16, 16, 0, 0, 0]] * 8
FLAT_PICTURE = PICTURE[0] * 8


@pytest.fixture(scope="module")
def config(models):
    file = models / "config.json"
    kinds = {"sklearn-iris": "sklearn", "pytorch-resnet": "onnx", "tiny-llm": "text"}
    listed = [{"kind": kind, "name": name, "dir": "."} for name, kind in kinds.items()]
    file.write_text(json.dumps({"models": listed}))
    return file


@pytest.fixture(scope="module")
def server(config):
    with started("model_server.testing.cli", "serve", "--config", str(config), "--pod", "pod-1") as server:
        yield server


@pytest.fixture(scope="module")
def model(server):
    return server.model


def predict(model, instances, name="sklearn-iris"):
    return model.post(f"/v1/models/{name}:predict", json={"instances": instances})


@contextmanager
def collector():
    """An OTLP collector that gives the spans it got."""
    from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

    received = queue.Queue()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self):
            body = self.rfile.read(int(self.headers["content-length"]))
            body = gzip.decompress(body) if self.headers.get("content-encoding") == "gzip" else body
            request = ExportTraceServiceRequest.FromString(body)
            received.put([span for r in request.resource_spans for s in r.scope_spans for span in s.spans])
            self.send_response(200)
            self.end_headers()

        def log_message(self, *_):
            pass

    server = HTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}/v1/traces", received
    server.shutdown()
    server.server_close()


def infer(model, name, shape, data, datatype="FP32"):
    tensor = {"name": "input-0", "shape": shape, "datatype": datatype, "data": data}
    return model.post(f"/v2/models/{name}/infer", json={"inputs": [tensor]})


class TestIris:
    def test_the_samples_are_told_apart(self, model):
        assert predict(model, [[5.1, 3.5, 1.4, 0.2]]).json() == {"predictions": [0]}
        assert predict(model, FLOWERS).json() == {"predictions": [1, 1]}

    def test_plain_curl_without_a_content_type_works(self, model):
        body = json.dumps({"instances": FLOWERS})
        headers = {"content-type": "application/x-www-form-urlencoded"}
        assert model.post("/v1/models/sklearn-iris:predict", content=body, headers=headers).status_code == 200

    def test_v2_says_the_same(self, model):
        reply = infer(model, "sklearn-iris", [1, 4], [5.1, 3.5, 1.4, 0.2]).json()
        assert reply["model_name"] == "sklearn-iris"
        (output,) = reply["outputs"]
        assert (output["shape"], output["datatype"], output["data"]) == ([1], "INT64", [0])

    def test_metadata_and_readiness(self, model):
        assert model.get("/v1/models/sklearn-iris").json() == {"name": "sklearn-iris", "ready": True}
        assert model.get("/v2/models/sklearn-iris").json()["inputs"][0]["shape"] == [-1, 4]
        assert model.get("/v2/health/ready").json() == {"ready": True}

    def test_an_unknown_model_does_not_exist(self, model):
        reply = predict(model, FLOWERS, name="nobody")
        assert (reply.status_code, reply.json()) == (404, {"error": "Model with name nobody does not exist."})


class TestMetrics:
    def test_accuracy_is_what_training_measured(self, model, models):
        scores = json.loads((models / "manifest.json").read_text())["scores"]
        text = model.get("/metrics").text
        assert f'ai_model_accuracy{{model_name="sklearn-iris"}} {scores["iris"]}' in text
        assert f'ai_model_accuracy{{model_name="pytorch-resnet"}} {scores["digits"]}' in text
        assert 'ai_model_accuracy{model_name="tiny-llm"}' not in text

    def test_kserve_times_the_model_and_a_slow_model_shows(self, server, model):
        def spent():
            found = re.search(
                r'request_predict_seconds_sum\{model_name="sklearn-iris"\} (\S+)', model.get("/metrics").text
            )
            return float(found[1]) if found else 0.0

        before = spent()
        server.control.put("/faults", json={"predict_delay_ms": 300})
        predict(model, FLOWERS)
        server.control.delete("/faults")
        assert spent() - before >= 0.3

    def test_scrapes_are_no_arrivals_and_can_be_broken(self, server, model):
        server.control.delete("/arrivals")
        assert model.get("/metrics").status_code == 200
        server.control.put("/faults", json={"metrics": 0})
        assert model.get("/metrics").status_code == 503
        assert predict(model, FLOWERS).status_code == 200
        server.control.delete("/faults")
        assert [each["path"] for each in server.control.get("/arrivals").json()] == ["/v1/models/sklearn-iris:predict"]


class TestTracing:
    def test_a_span_goes_to_the_collector_in_the_callers_trace(self, config, monkeypatch):
        with collector() as (url, received):
            monkeypatch.setenv("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", url)
            monkeypatch.setenv("OTEL_SERVICE_NAME", "iris")
            with started("model_server.testing.cli", "serve", "--config", str(config)) as server:
                parent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
                body = {"instances": FLOWERS}
                server.model.post("/v1/models/sklearn-iris:predict", json=body, headers={"traceparent": parent})
                server.model.get("/metrics")
                spans = received.get(timeout=20)
        assert [(span.trace_id.hex(), span.parent_span_id.hex()) for span in spans] == [
            ("0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331")
        ]


class TestImages:
    def test_a_picture_gets_a_class_with_probabilities(self, model):
        for picture in (PICTURE, FLAT_PICTURE):
            (answer,) = predict(model, [picture], "pytorch-resnet").json()["predictions"]
            assert answer["class"] == 1
            assert sum(answer["probabilities"]) == pytest.approx(1, abs=1e-4)

    def test_v2_gives_both_as_tensors(self, model):
        outputs = infer(model, "pytorch-resnet", [1, 8, 8], FLAT_PICTURE).json()["outputs"]
        assert [(output["name"], output["shape"]) for output in outputs] == [("class", [1]), ("probabilities", [1, 10])]


class TestBadInput:
    @pytest.mark.parametrize("name", ["sklearn-iris", "pytorch-resnet"])
    @pytest.mark.parametrize(
        "body",
        [
            "{broken",
            "[]",
            "3",
            "{}",
            '{"instances": "x"}',
            '{"instances": []}',
            '{"instances": [[1, 2]]}',
            '{"instances": [[1, 2, 3, 4], [1]]}',
            '{"instances": [["a", "b", "c", "d"]]}',
            '{"instances": [{"a": 1}]}',
            '{"instances": [null]}',
        ],
    )
    def test_v1_says_400_and_stays_ready(self, model, name, body):
        headers = {"content-type": "application/json"}
        reply = model.post(f"/v1/models/{name}:predict", content=body, headers=headers)
        assert reply.status_code == 400
        assert reply.json().keys() == {"error"}
        assert model.get("/v2/health/ready").status_code == 200

    @pytest.mark.parametrize(
        ("shape", "data", "datatype"),
        [([2, 4], [1, 2, 3, 4], "FP32"), ([1, 3], [1, 2, 3], "FP32"), ([1, 4], ["a"] * 4, "BYTES"), ([4], [1], "?")],
    )
    def test_v2_says_400(self, model, shape, data, datatype):
        reply = infer(model, "sklearn-iris", shape, data, datatype)
        assert reply.status_code == 400
        assert reply.json().keys() == {"error"}

    @pytest.mark.parametrize("body", ["{broken", "{}", '{"inputs": []}', '{"inputs": [1]}'])
    def test_v2_that_is_not_v2_says_400(self, model, body):
        headers = {"content-type": "application/json"}
        reply = model.post("/v2/models/sklearn-iris/infer", content=body, headers=headers)
        assert reply.status_code == 400
        assert reply.json().keys() == {"error"}

    def test_a_huge_body_is_refused(self, model):
        assert model.post("/v1/models/sklearn-iris:predict", content=b"x" * 9_000_000).status_code == 413

    def test_a_text_model_says_where_to_ask(self, model):
        reply = predict(model, ["x"], "tiny-llm")
        assert reply.status_code == 400
        assert "/v1/chat/completions" in reply.json()["error"]


class TestText:
    @pytest.fixture
    def client(self, server):
        return openai.OpenAI(base_url=f"{server.urls[0]}/v1", api_key="none", max_retries=0)

    def chat(self, client, text="Tell me about the iris data set", **options):
        return client.chat.completions.create(model="tiny-llm", messages=[{"role": "user", "content": text}], **options)

    def test_it_answers_the_same_to_the_same_seed(self, client):
        first, second, other = (self.chat(client, seed=seed, temperature=2) for seed in (1, 1, 2))
        assert first.choices[0].message.content == second.choices[0].message.content
        assert first.choices[0].message.content != other.choices[0].message.content

    def test_usage_adds_up_and_grows_with_the_prompt(self, client):
        short, long = self.chat(client).usage, self.chat(client, "Tell me about the iris data set " * 20).usage
        assert short.total_tokens == short.prompt_tokens + short.completion_tokens
        assert long.prompt_tokens > 15 * short.prompt_tokens

    def test_max_tokens_is_respected(self, client):
        answer = self.chat(client, max_tokens=3)
        assert answer.usage.completion_tokens == 3
        assert answer.choices[0].finish_reason == "length"

    def test_a_stream_says_the_same_as_the_whole_answer(self, client):
        whole = self.chat(client)
        *chunks, usage = self.chat(client, stream=True, stream_options={"include_usage": True})
        streamed = "".join(chunk.choices[0].delta.content or "" for chunk in chunks)
        assert streamed == whole.choices[0].message.content
        assert usage.usage == whole.usage

    def test_completions_work_too(self, client):
        assert client.completions.create(model="tiny-llm", prompt="The digits").choices[0].text

    def test_only_text_models_are_listed(self, client):
        assert [model.id for model in client.models.list()] == ["tiny-llm"]

    def test_similar_texts_have_closer_vectors(self, client):
        texts = ["the cat sat on the mat", "the cat sat on the mat", "a cat is sitting on a mat", "stock prices fell"]
        same, again, similar, other = (
            one.embedding for one in client.embeddings.create(model="tiny-llm", input=texts).data
        )
        assert same == again
        assert math.hypot(*same) == pytest.approx(1, abs=1e-3)
        assert math.dist(same, similar) < math.dist(same, other)

    def test_an_unknown_model_is_told_the_openai_way(self, client):
        with pytest.raises(openai.NotFoundError) as caught:
            client.chat.completions.create(model="nobody", messages=[{"role": "user", "content": "x"}])
        assert caught.value.code == "model_not_found"

    def test_kserves_own_prefix_works(self, model):
        assert model.get("/openai/v1/models").json()["data"][0]["id"] == "tiny-llm"


class TestBuilds:
    def test_the_testing_build_injects_faults_and_echoes(self, server):
        reply = server.model.get("/echo", headers={"x-stub-status": "418"})
        assert (reply.status_code, reply.headers["x-pod"]) == (418, "pod-1")
        assert server.control.get("/arrivals", params={"path": "/echo"}).json()

    def test_the_production_build_knows_nothing_of_that(self, models):
        arguments = ["serve", "--kind", "onnx", "--name", "mnist", "--model-dir", str(models)]
        with started("model_server.cli", *arguments, ports=1) as server:
            headers = {"x-stub-status": "418", "x-stub-delay-ms": "9000", "x-stub-fail-n": "9", "x-request-id": "r"}
            reply = server.model.get("/v2/health/ready", headers=headers, timeout=5)
            assert reply.status_code == 200
            assert not reply.headers.keys() & {"x-pod", "x-model-version", "x-stub-attempt"}
            assert server.model.get("/echo").status_code == 404
            server.process.terminate()
            assert server.process.wait(timeout=2) == 0

    def test_production_imports_no_testing_code_and_nothing_that_is_slow_and_not_used(self):
        unwanted = "{'model_server.testing', 'pandas', 'kubernetes', 'sklearn'}"
        code = f"import sys, model_server.cli, model_server.server; sys.exit(bool({unwanted} & set(sys.modules)))"
        assert subprocess.run([sys.executable, "-c", code]).returncode == 0


class TestArtifacts:
    def serve(self, directory, *arguments):
        command = [sys.executable, "-m", "model_server.cli", "serve", "--port", "0", "--host", "127.0.0.1"]
        arguments = arguments or ("--kind", "sklearn", "--name", "x", "--model-dir", str(directory))
        return subprocess.run([*command, *arguments], capture_output=True, text=True, timeout=15)

    def test_training_again_makes_the_same_files(self, models, tmp_path):
        command = [sys.executable, "-m", "model_server.cli", "train", "--out", str(tmp_path)]
        subprocess.run(command, check=True)
        assert (tmp_path / "manifest.json").read_text() == (models / "manifest.json").read_text()

    def test_a_file_that_was_changed_is_not_loaded(self, models, tmp_path):
        changed = shutil.copytree(models, tmp_path / "models")
        (changed / "iris.joblib").write_bytes(b"something else")
        result = self.serve(changed)
        assert result.returncode == 2
        assert "is not what manifest.json says it is" in result.stderr.splitlines()[-1]

    def test_a_directory_without_models_is_one_clear_line(self, tmp_path):
        result = self.serve(tmp_path)
        assert result.returncode == 2
        assert "model-server train --out" in result.stderr.splitlines()[-1]

    def test_no_model_named_is_one_clear_line(self, tmp_path):
        result = self.serve(tmp_path, "--kind", "onnx")
        assert result.returncode == 2
        assert "serve needs --kind, --name and --model-dir, or --config" in result.stderr.splitlines()[-1]
