import logging
import os
import re
import signal
import socket
import stat
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor

import httpx
import jwt
import pytest
from starlette.testclient import TestClient

from jwt_server.app import create_app
from jwt_server.cli import main
from jwt_server.keys import KeyProblem, KeyStore


@pytest.fixture
def directory(tmp_path):
    return tmp_path / "keys"


@pytest.fixture
def store(directory):
    store = KeyStore(directory)
    store.ensure()
    return store


@pytest.fixture
def client(store):
    return client_from("127.0.0.1", store)


def client_from(address, store, demo_tokens=True):
    return TestClient(create_app(store, demo_tokens=demo_tokens), client=(address, 50000))


def kids(client):
    return [key["kid"] for key in client.get("/.well-known/jwks.json").json()["keys"]]


def tenant_token(client, tenant="tenant-a"):
    return client.get("/tokens").json()[tenant]


def verified(client, token, audience="tenant-a"):
    keys = jwt.PyJWKSet.from_dict(client.get("/.well-known/jwks.json").json())
    key = keys[jwt.get_unverified_header(token)["kid"]]
    return jwt.decode(token, key, algorithms=["RS256"], audience=audience, issuer="inference-in-a-box")


class TestJwks:
    def test_it_publishes_public_keys_only(self, client):
        reply = client.get("/.well-known/jwks.json")
        (key,) = reply.json()["keys"]
        assert key.keys() == {"kty", "n", "e", "alg", "use", "kid"}
        assert (key["kty"], key["alg"], key["use"], key["kid"]) == ("RSA", "RS256", "sig", "jwt-server-key-1")

    def test_it_says_how_long_it_may_be_cached(self, client):
        assert client.get("/.well-known/jwks.json").headers["cache-control"] == "public, max-age=60"


class TestTokens:
    @pytest.mark.parametrize("letter", ["a", "b", "c"])
    def test_each_tenant_gets_a_token_that_verifies(self, client, letter):
        claims = verified(client, tenant_token(client, f"tenant-{letter}"), audience=f"tenant-{letter}")
        assert claims["aud"] == claims["tenant"] == f"tenant-{letter}"
        assert claims["sub"] == f"user-{letter}"
        assert claims["name"] == f"User {letter.upper()}"
        assert claims["exp"] - claims["iat"] == 24 * 60 * 60
        assert abs(claims["iat"] - time.time()) < 5

    def test_they_are_not_cached(self, client):
        assert client.get("/tokens").headers["cache-control"] == "no-store"

    def test_without_the_demo_flag_the_path_does_not_exist(self, store):
        reply = client_from("127.0.0.1", store, demo_tokens=False).get("/tokens")
        assert reply.status_code == 404
        assert reply.json() == {"error": "not found"}

    @pytest.mark.parametrize("address", ["127.0.0.1", "127.0.0.2", "::1", "::ffff:127.0.0.1"])
    def test_a_client_on_this_machine_gets_them(self, store, address):
        assert client_from(address, store).get("/tokens").status_code == 200

    @pytest.mark.parametrize("address", ["10.99.0.10", "192.0.2.1", "::ffff:10.99.0.10", "fe80::1%eth0", "", "pod"])
    def test_a_client_elsewhere_does_not(self, store, address):
        reply = client_from(address, store).get("/tokens")
        assert reply.status_code == 404
        assert reply.json() == {"error": "not found"}
        assert len(kids(client_from(address, store))) == 1

    @pytest.mark.parametrize("header", ["x-forwarded-for", "x-real-ip", "forwarded", "host"])
    def test_a_header_makes_no_client_local(self, store, header):
        reply = client_from("10.99.0.10", store).get("/tokens", headers={header: "127.0.0.1"})
        assert reply.status_code == 404


class TestEverythingElse:
    def test_it_is_healthy(self, client):
        assert client.get("/health").json() == {"status": "healthy"}

    @pytest.mark.parametrize("path", ["/", "/tokens/", "/.well-known", "/health/x", "/%2e%2e/etc/passwd"])
    def test_an_unknown_path_is_not_found(self, client, path):
        reply = client.get(path)
        assert reply.status_code == 404
        assert reply.json() == {"error": "not found"}

    @pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "PATCH"])
    @pytest.mark.parametrize("path", ["/tokens", "/health", "/.well-known/jwks.json"])
    def test_only_get_is_allowed(self, client, method, path):
        reply = client.request(method, path, content=b"x" * 1_000_000)
        assert reply.status_code == 405
        assert reply.json() == {"error": "method not allowed"}

    def test_no_token_reaches_the_access_log(self, client, caplog):
        token = tenant_token(client)
        with caplog.at_level(logging.INFO):
            client.get(f"/{token}?access_token={token}", headers={"authorization": f"Bearer {token}"})
        logged = " ".join(record.getMessage() for record in caplog.records if record.name.startswith("jwt-server"))
        assert "GET /[token] 404" in logged
        assert token.split(".")[1] not in logged


class TestKeys:
    def test_a_key_can_be_read_by_its_owner_only(self, store, directory):
        (file,) = directory.iterdir()
        assert stat.S_IMODE(file.stat().st_mode) == 0o600

    def test_a_restart_keeps_the_keys(self, client, directory):
        token = tenant_token(client)
        restarted = KeyStore(directory)
        restarted.ensure()
        assert verified(TestClient(create_app(restarted)), token)["tenant"] == "tenant-a"

    def test_a_running_server_sees_a_rotation_and_signs_with_the_newest_key(self, client, directory):
        old = tenant_token(client)
        KeyStore(directory).rotate()
        new = tenant_token(client)
        assert kids(client) == ["jwt-server-key-2", "jwt-server-key-1"]
        assert jwt.get_unverified_header(new)["kid"] == "jwt-server-key-2"
        assert verified(client, old)
        assert verified(client, new)

    def test_a_retired_key_is_published_no_more_and_its_name_is_not_used_again(self, client, directory):
        store = KeyStore(directory)
        store.rotate()
        store.retire("jwt-server-key-2")
        assert kids(client) == ["jwt-server-key-1"]
        assert store.rotate() == "jwt-server-key-3"
        assert not (directory / "jwt-server-key-2.pem").exists()

    def test_a_key_whose_retirement_was_cut_short_is_retired(self, client, directory):
        KeyStore(directory).rotate()
        (directory / "jwt-server-key-1.retired").touch()
        assert kids(client) == ["jwt-server-key-2"]

    def test_the_last_key_cannot_be_retired(self, store):
        with pytest.raises(KeyProblem, match="only key left"):
            store.retire("jwt-server-key-1")

    def test_an_unknown_key_cannot_be_retired(self, store):
        with pytest.raises(KeyProblem, match="no key 'nobody'"):
            store.retire("nobody")

    def test_a_directory_that_breaks_does_not_take_the_keys_from_a_running_server(self, client, directory):
        before = kids(client)
        (directory / "jwt-server-key-2.pem").write_text("half a key")
        (directory / "jwt-server-key-2.pem").chmod(0o600)
        assert kids(client) == before
        for file in directory.iterdir():
            file.unlink()
        assert kids(client) == before

    def test_servers_that_start_together_share_one_key(self, directory):
        with ThreadPoolExecutor(4) as pool:
            list(pool.map(lambda _: KeyStore(directory).ensure(), range(4)))
        assert [key.kid for key in KeyStore(directory).live()] == ["jwt-server-key-1"]


class TestCommandLine:
    def test_keys_can_be_rotated_listed_and_retired(self, store, directory, capsys):
        assert main(["keys", "rotate", "--keys", str(directory)]) == 0
        assert main(["keys", "retire", "jwt-server-key-1", "--keys", str(directory)]) == 0
        assert main(["keys", "list", "--keys", str(directory)]) == 0
        assert capsys.readouterr().out.split() == ["jwt-server-key-2", "jwt-server-key-2"]

    @pytest.mark.parametrize("command", [["serve", "--port", "0"], ["keys", "rotate"], ["keys", "list"]])
    def test_a_key_directory_that_is_a_file_is_one_clear_line(self, tmp_path, capsys, command):
        file = tmp_path / "file"
        file.touch()
        assert main([*command, "--keys", str(file)]) == 2
        (line,) = capsys.readouterr().err.strip().splitlines()[-1:]
        assert line.startswith("jwt-server: cannot ")

    @pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
    def test_a_directory_without_permission_is_one_clear_line(self, tmp_path, capsys):
        tmp_path.chmod(0o500)
        assert main(["serve", "--port", "0", "--keys", str(tmp_path / "keys")]) == 2
        assert "cannot create key directory" in capsys.readouterr().err

    def test_a_key_that_everybody_can_read_is_refused(self, store, directory, capsys):
        (directory / "jwt-server-key-1.pem").chmod(0o644)
        assert main(["serve", "--port", "0", "--keys", str(directory)]) == 2
        assert "chmod 600" in capsys.readouterr().err

    def test_a_port_that_is_taken_is_one_clear_line(self, store, directory, capsys):
        with socket.create_server(("127.0.0.1", 0)) as taken:
            port = str(taken.getsockname()[1])
            assert main(["serve", "--host", "127.0.0.1", "--port", port, "--keys", str(directory)]) == 2
        assert f"cannot listen on 127.0.0.1:{port}" in capsys.readouterr().err

    def test_it_serves_and_stops_when_asked(self, directory):
        command = [sys.executable, "-m", "jwt_server", "serve", "--host", "127.0.0.1", "--port", "0", "--demo-tokens"]
        with subprocess.Popen([*command, "--keys", str(directory)], stderr=subprocess.PIPE, text=True) as process:
            url = next(found[0] for line in process.stderr if (found := re.search(r"http://\S+", line)))
            assert httpx.get(f"{url}/tokens", timeout=5).json().keys() == {"tenant-a", "tenant-b", "tenant-c"}
            process.send_signal(signal.SIGTERM)
            assert process.wait(timeout=3) == 0
