"""The tier-1 Envoy runs again when it ends: its gateway's process is ended for that."""

import os
import shutil
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from inferencebox.polling import poll
from inferencebox.providers.local.restart import keep_envoy_running

PARENT = """
import subprocess, sys
child = subprocess.Popen([sys.argv[1], "300"])
print(child.pid, flush=True)
child.wait()
import time; time.sleep(300)
"""


@pytest.fixture
def gateway(tmp_path: Path) -> subprocess.Popen[str]:
    """A process with a child, under names that no other process has."""
    names = {"gateway-a1": sys.executable, "proxy-a1": shutil.which("sleep") or ""}
    for name, program in names.items():
        os.symlink(program, tmp_path / name)
    return subprocess.Popen(
        [str(tmp_path / "gateway-a1"), "-c", PARENT, str(tmp_path / "proxy-a1")], stdout=subprocess.PIPE, text=True
    )


def test_the_end_of_the_proxy_is_the_end_of_its_gateway(gateway: subprocess.Popen[str]) -> None:
    assert gateway.stdout is not None
    child = int(gateway.stdout.readline())
    threading.Thread(target=keep_envoy_running, args=("gateway-a1", "proxy-a1"), daemon=True).start()
    assert poll(lambda: gateway.poll() is not None, 1.5) is False, "nothing has ended yet"
    subprocess.run(["kill", "-9", str(child)], check=True)
    assert poll(lambda: gateway.poll() is not None, 10)
    assert gateway.returncode == -signal.SIGKILL
