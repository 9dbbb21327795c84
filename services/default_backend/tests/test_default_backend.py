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
