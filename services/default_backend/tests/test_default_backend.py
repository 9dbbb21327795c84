import re
import signal
import socket
import subprocess
import sys

import httpx
import pytest
from starlette.testclient import TestClient

from default_backend.app import create_app


@pytest.fixture
def client():
    return TestClient(create_app(pod="pod-1"))


@pytest.mark.parametrize("path", ["/", "/shop/cart", "/v1", "/v3/models/x"])
def test_an_ordinary_path_is_greeted(client, path):
    reply = client.get(path)
    assert reply.status_code == 200
    assert reply.json() == {"service": "default-backend", "path": path}
    assert reply.headers["x-pod"] == "pod-1"


@pytest.mark.parametrize("method", ["POST", "PUT", "PATCH", "DELETE", "OPTIONS"])
def test_every_method_is_greeted(client, method):
    assert client.request(method, "/shop").status_code == 200


@pytest.mark.parametrize("path", ["/v1/models/nobody:predict", "/v1/models/nobody", "/v2/models/nobody/infer"])
def test_a_model_that_is_routed_nowhere_does_not_exist(client, path):
    reply = client.post(path, json={"instances": []})
    assert reply.status_code == 404
    assert reply.json() == {"error": "Model with name nobody does not exist."}
    assert reply.headers["x-pod"] == "pod-1"


OPENAI_PATHS = ["/v1/chat/completions", "/v1/completions", "/v1/embeddings"]


@pytest.mark.parametrize("path", OPENAI_PATHS)
def test_an_openai_model_that_is_routed_nowhere_does_not_exist_in_openais_words(client, path):
    reply = client.post(path, json={"model": "nobody"})
    assert reply.status_code == 404
    message = "The model 'nobody' does not exist"
    error = {"message": message, "type": "invalid_request_error", "param": "model", "code": "model_not_found"}
    assert reply.json() == {"error": error}
    assert reply.headers["x-pod"] == "pod-1"


@pytest.mark.parametrize("path", OPENAI_PATHS)
@pytest.mark.parametrize("body", [{}, {"model": ""}, {"model": None}, {"model": 7}, [], "nobody"])
def test_an_openai_request_that_names_no_model_is_a_bad_one(client, path, body):
    reply = client.post(path, json=body)
    assert reply.status_code == 400
    error = reply.json()["error"]
    assert (error["type"], error["param"], error["code"]) == ("invalid_request_error", "model", None)


@pytest.mark.parametrize("body", [b"", b"{", b"\xff", b"[" * 100_000])
def test_an_openai_request_that_is_no_json_is_a_bad_one(client, body):
    reply = client.post("/v1/chat/completions", content=body)
    assert reply.status_code == 400
    assert reply.json()["error"]["message"] == "The request body is not valid JSON"


def test_an_openai_request_that_is_too_long_is_refused(client):
    reply = client.post("/v1/embeddings", content=b" " * (8 * 1024 * 1024 + 1))
    assert reply.status_code == 413
    assert reply.json()["error"]["type"] == "invalid_request_error"


def test_only_asking_names_an_openai_model(client):
    assert client.get("/v1/chat/completions").json()["service"] == "default-backend"


def test_it_says_that_it_is_healthy(client):
    assert client.get("/health").json() == {"status": "healthy"}


def test_it_starts_on_a_free_port_and_stops_when_asked():
    command = [sys.executable, "-m", "default_backend.cli", "--host", "127.0.0.1", "--port", "0"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        url = re.search(r"http://\S+", process.stdout.readline())[0]
        assert httpx.get(url, timeout=5).status_code == 200
        process.send_signal(signal.SIGTERM)
        assert process.wait(timeout=3) == 0


def test_a_port_that_is_taken_is_one_clear_line_and_exit_code_2():
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        command = [sys.executable, "-m", "default_backend.cli", "--host", "127.0.0.1", "--port", port]
        result = subprocess.run(command, capture_output=True, text=True, timeout=10)
    assert result.returncode == 2
    assert len(result.stderr.splitlines()) == 1
    assert f"cannot listen on 127.0.0.1:{port}" in result.stderr
