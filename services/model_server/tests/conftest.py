"""Servers as processes, on free ports."""

import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import httpx
import pytest


class Server:
    def __init__(self, process: subprocess.Popen[str], lines: int) -> None:
        self.process = process
        self.urls = [re.search(r"http://\S+", process.stdout.readline())[0] for _ in range(lines)]
        self.model = httpx.Client(base_url=self.urls[0], timeout=30)
        self.control = httpx.Client(base_url=self.urls[-1], timeout=30)


@contextmanager
def started(module: str, *arguments: str, ports: int = 2) -> Iterator[Server]:
    command = [sys.executable, "-m", module, *arguments, "--host", "127.0.0.1", "--port", "0"]
    command += ["--control-port", "0"] if ports == 2 else []
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as process:
        try:
            yield Server(process, ports)
        finally:
            process.terminate()


@pytest.fixture(scope="session")
def models(tmp_path_factory):
    """A directory of trained models."""
    out = tmp_path_factory.mktemp("models")
    subprocess.run([sys.executable, "-m", "model_server.cli", "train", "--out", str(out)], check=True)
    return out
