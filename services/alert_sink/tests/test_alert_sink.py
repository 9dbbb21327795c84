import re
import smtplib
import socket
import subprocess
import sys
from email.message import EmailMessage

import httpx
import pytest
from starlette.testclient import TestClient

from alert_sink.records import REMEMBERED, Records
from alert_sink.web import create_app

MESSAGE = {
    "channel": "#alerts",
    "username": "alertmanager",
    "attachments": [{"title": "[FIRING] ModelDown", "text": "iris of tenant-a is down", "fallback": "x"}],
}


@pytest.fixture
def records():
    return Records()


@pytest.fixture
def client(records):
    return TestClient(create_app(records))


def test_a_slack_message_is_taken_as_slack_takes_it(client):
    reply = client.post("/slack", json=MESSAGE)
    assert (reply.status_code, reply.text) == (200, "ok")
    (seen,) = client.get("/notifications").json()
    assert seen["channel"] == "slack"
    assert seen["title"] == "[FIRING] ModelDown"
    assert "iris of tenant-a is down" in seen["text"]


@pytest.mark.parametrize(("body", "words"), [(b"{", "invalid_payload"), (b"[]", "invalid_payload"), (b"{}", "no_text")])
def test_what_slack_refuses_is_refused(client, records, body, words):
    reply = client.post("/slack", content=body)
    assert (reply.status_code, reply.text) == (400, words)
    assert not records.kept


def test_notifications_are_found_by_time_channel_and_text(client, records):
    records.add("slack", "", [], "ModelDown", "one")
    records.add("email", "", [], "ModelDown", "two")
    first = records.kept[0]
    assert len(client.get("/notifications", params={"channel": "email"}).json()) == 1
    assert len(client.get("/notifications", params={"contains": "one"}).json()) == 1
    assert len(client.get("/notifications", params={"since": first.at + 1000}).json()) == 0
    assert client.get("/notifications", params={"since": "yesterday"}).status_code == 400


def test_only_so_many_are_kept(records):
    for number in range(REMEMBERED + 5):
        records.add("slack", "", [], str(number), "")
    assert len(records.find()) == REMEMBERED
    assert records.find()[0].title == "5"


@pytest.fixture
def ports():
    command = [sys.executable, "-m", "alert_sink.cli", "--host", "127.0.0.1", "--port", "0", "--smtp-port", "0"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        yield [int(re.search(r":(\d+)$", process.stdout.readline())[1]) for _ in range(2)]
        process.terminate()
        assert process.wait(10) == 0


def test_a_mail_is_taken_over_smtp(ports):
    web, mail = ports
    message = EmailMessage()
    message["Subject"], message["From"], message["To"] = "[FIRING] ModelDown", "am@platform", "sre@platform"
    message.set_content("iris of tenant-a is down")
    with smtplib.SMTP("127.0.0.1", mail) as client:
        client.send_message(message)
    (seen,) = httpx.get(f"http://127.0.0.1:{web}/notifications", trust_env=False).json()
    assert (seen["channel"], seen["title"], seen["recipients"]) == ("email", "[FIRING] ModelDown", ["sre@platform"])
    assert "tenant-a is down" in seen["text"]


def test_a_port_that_is_taken_is_one_line_and_exit_code_2():
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        command = [sys.executable, "-m", "alert_sink.cli", "--host", "127.0.0.1", "--port", port, "--smtp-port", "0"]
        done = subprocess.run(command, capture_output=True, text=True, timeout=30, check=False)
    assert done.returncode == 2
    assert len(done.stderr.strip().splitlines()) == 1
