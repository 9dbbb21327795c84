import asyncio
import csv
import io
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest
from starlette.testclient import TestClient

from chargeback.counters import Counters, Unanswered
from chargeback.errors import SetupProblem
from chargeback.ledger import Ledger, Reading, Usage
from chargeback.prices import Price, Prices
from chargeback.reading import Readings
from chargeback.report import as_csv, report
from chargeback.web import create_app

PRICES = Prices("USD", Price(0.01, 2, 0.1), {"tenant-b/llm": Price(0.01, 4, 0.1)})


def requests(value, tenant="tenant-a", model="iris", series="one", source="gateway"):
    return Reading("requests", tenant, model, series, source, value)


@pytest.fixture
def ledger(tmp_path):
    return Ledger.open(tmp_path / "ledger.json")


def test_a_counter_counts_from_zero_when_it_is_first_seen(ledger):
    ledger.enter([requests(7)])
    assert ledger.used["tenant-a", "iris"].requests == 7


def test_growth_is_entered_once(ledger):
    for value in (3, 10, 10):
        ledger.enter([requests(value)])
    assert ledger.used["tenant-a", "iris"].requests == 10


def test_a_counter_that_started_anew_loses_nothing(ledger):
    for value in (10, 4, 6):
        ledger.enter([requests(value)])
    assert ledger.used["tenant-a", "iris"].requests == 16


def test_a_counter_that_was_dropped_and_begun_anew_loses_nothing(ledger):
    other = requests(1, series="two")
    for readings in ([requests(54), other], [other], [requests(750), other]):
        ledger.enter(readings)
    assert ledger.used["tenant-a", "iris"].requests == 54 + 750 + 1


def test_counters_of_a_gateway_that_was_out_of_reach_are_not_counted_twice(ledger):
    elsewhere = requests(1, series="two", source="another gateway")
    for readings in ([requests(54), elsewhere], [elsewhere], [requests(60), elsewhere]):
        ledger.enter(readings)
    assert ledger.used["tenant-a", "iris"].requests == 60 + 1


def test_replicas_and_quantities_are_counted_apart(ledger):
    ledger.enter([requests(5), requests(6, series="two"), Reading("tokens", "tenant-a", "iris", "one", "gateway", 5)])
    assert ledger.used["tenant-a", "iris"] == Usage(11, 5, 0)


def test_a_restart_neither_loses_nor_counts_twice(ledger):
    ledger.enter([requests(10)])
    again = Ledger.open(ledger.file)
    again.enter([requests(12)])
    assert again.used["tenant-a", "iris"].requests == 12


def test_a_file_that_is_no_ledger_is_left_as_it_is(tmp_path):
    file = tmp_path / "ledger.json"
    file.write_text("[]")
    with pytest.raises(SetupProblem, match="no ledger"):
        Ledger.open(file)
    assert file.read_text() == "[]"


def test_the_rows_sum_to_the_total_and_each_model_has_its_price(ledger):
    tokens = Reading("tokens", "tenant-b", "llm", "t", "gateway", 500)
    ledger.enter([requests(100), requests(10, "tenant-b", "llm", series="two"), tokens])
    content = report(ledger, PRICES)
    by_tenant = {row["tenant"]: row for row in content["rows"]}
    assert by_tenant["tenant-a"]["cost"] == pytest.approx(1.0)
    assert by_tenant["tenant-b"]["cost"] == pytest.approx(0.1 + 2.0)
    for quantity in ("requests", "tokens", "cpu_seconds", "cost"):
        assert content["total"][quantity] == pytest.approx(sum(row[quantity] for row in content["rows"]))


def test_the_spreadsheet_has_the_same_figures(ledger):
    ledger.enter([requests(3)])
    rows = list(csv.DictReader(io.StringIO(as_csv(report(ledger, PRICES)))))
    assert [row["tenant"] for row in rows] == ["tenant-a", "total"]
    assert rows[0]["requests"] == rows[1]["requests"] == "3.0"


def test_a_price_list_says_the_default_and_what_differs(tmp_path):
    file = tmp_path / "prices.yaml"
    file.write_text("currency: EUR\ndefault: {request: 1, cpu_second: 2}\nmodels: {t/m: {request: 3}}\n")
    prices = Prices.load(file)
    assert prices.of("t", "other") == Price(1, 0, 2)
    assert prices.of("t", "m") == Price(3, 0, 2)


@pytest.mark.parametrize(
    "text", ["", "currency: EUR", "currency: EUR\ndefault: {tea: 1}", "currency: E\ndefault: {request: -1}"]
)
def test_what_is_no_price_list_is_said(tmp_path, text):
    file = tmp_path / "prices.yaml"
    file.write_text(text)
    with pytest.raises(SetupProblem, match="no price list"):
        Prices.load(file)


def test_metrics_report_and_health(ledger):
    readings = Readings(Counters("http://127.0.0.1:1"), ledger, every=60)
    client = TestClient(create_app(readings, PRICES))
    assert client.get("/health").status_code == 503
    ledger.enter([requests(4)])
    readings.last = 10**10
    assert client.get("/health").status_code == 200
    text = client.get("/metrics/").text
    assert 'tenant_usage_requests_total{model="iris",tenant="tenant-a"} 4.0' in text
    assert 'cost_per_inference{currency="USD",model="iris",tenant="tenant-a"} 0.01' in text
    assert client.get("/report").json()["total"]["requests"] == 4
    assert client.get("/report", params={"format": "csv"}).text.startswith("tenant,model,")
    assert client.get("/report", params={"format": "pdf"}).status_code == 400


class _Prometheus(BaseHTTPRequestHandler):
    def do_GET(self):
        metric = b'{"tenant":"tenant-a","model":"iris"}'
        body = b'{"status":"success","data":{"result":[{"metric":%s,"value":[0,"5"]}]}}' % metric
        self.send_response(200)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass


def test_counters_are_read_from_prometheus_and_entered(ledger):
    server = HTTPServer(("127.0.0.1", 0), _Prometheus)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    readings = Readings(Counters(f"http://127.0.0.1:{server.server_port}"), ledger, every=60)
    with pytest.raises(TimeoutError):
        asyncio.run(asyncio.wait_for(readings.go_on(), 2))
    server.shutdown()
    server.server_close()
    assert ledger.used["tenant-a", "iris"] == Usage(5, 5, 5)
    assert readings.last > 0


def test_a_prometheus_that_is_away_enters_nothing():
    with pytest.raises(Unanswered):
        Counters("http://127.0.0.1:1").read()


def test_a_missing_price_list_is_one_line_and_exit_code_2(tmp_path):
    command = [
        sys.executable,
        "-m",
        "chargeback.cli",
        "--prices",
        str(tmp_path / "no"),
        "--ledger",
        str(tmp_path / "l"),
    ]
    done = subprocess.run(command, capture_output=True, text=True, timeout=30, check=False)
    assert done.returncode == 2
    assert len(done.stderr.strip().splitlines()) == 1
