"""Alerts and dashboard ask for metrics that the service has, and a real Prometheus raises and clears the alerts."""

from __future__ import annotations

import http.server
import json
import math
import os
import re
import shutil
import socket
import subprocess
import threading
import time
import urllib.parse
import urllib.request
from collections import defaultdict
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from prometheus_client.parser import text_string_to_metric_families

from enzyme_stability.prediction import Prediction
from enzyme_stability.serving.telemetry import Telemetry

FOLDER = Path(__file__).parents[2] / "deploy" / "monitoring"
DASHBOARD = json.loads((FOLDER / "grafana" / "dashboard.json").read_text())
RULES = yaml.safe_load((FOLDER / "alerts.yml").read_text())["groups"][0]["rules"]
PANELS = [panel for panel in DASHBOARD["panels"] if panel["type"] != "row"]
TARGETS = [(panel["title"], target["expr"]) for panel in PANELS for target in panel["targets"]]
EXPRESSIONS = {rule["alert"]: rule["expr"] for rule in RULES} | {f"{title}: {expr}": expr for title, expr in TARGETS}
METRIC = re.compile(r"\b(?:enzyme_stability|process)_\w+")


def busy_telemetry() -> Telemetry:
    """Every metric has been used once, so that every label has a value."""
    telemetry = Telemetry()
    telemetry.set_model("builtin", "ab" * 32, "0.1.0")
    healthy_traffic(telemetry)
    telemetry.set_feedback(rows=100, mae_celsius=4.0, bias_celsius=0.1, coverage=0.9, asked_coverage=0.9)
    telemetry.set_drift({"length": 0.05}, checked_at=time.time())
    return telemetry


def healthy_traffic(telemetry: Telemetry) -> None:
    """What arrives between two scrapes."""
    for _ in range(200):
        telemetry.observe_request("/v1/predict", "POST", 200, 0.01)
    telemetry.observe_request("/v1/predict", "POST", 500, 0.01)
    telemetry.observe_request("/v1/predict", "POST", 429, 0.001)
    telemetry.observe_request("/readyz", "GET", 503, 0.001)
    telemetry.errors.labels("internal").inc()
    telemetry.rejected.labels("overloaded").inc()
    telemetry.set_queue(1, 100, 1000)
    telemetry.set_jobs({"done": 1})
    telemetry.observe_batch(500, 1000)
    telemetry.count_predictions([Prediction("a", 40, 50.0, 45.0, 55.0, True, "ok", "")])


def exposed() -> dict[str, set[str]]:
    """Names of the samples of each metric."""
    families = text_string_to_metric_families(busy_telemetry().exposition()[0].decode())
    return {family.name: {sample.name for sample in family.samples} for family in families}


@pytest.mark.parametrize("name", EXPRESSIONS)
def test_every_expression_asks_for_metrics_that_there_are(name: str) -> None:
    asked = set(METRIC.findall(EXPRESSIONS[name]))
    assert asked - set().union(*exposed().values()) == set()
    assert asked or name == "EnzymeStabilityDown"


def test_every_metric_of_the_service_is_on_the_dashboard() -> None:
    shown = set(METRIC.findall(" ".join(expr for _, expr in TARGETS)))
    ours = {name: samples for name, samples in exposed().items() if name.startswith("enzyme_stability_")}
    assert len(ours) > 20
    assert [name for name, samples in ours.items() if not samples & shown and not name.endswith("_created")] == []


def test_the_dashboard_takes_any_data_source_and_is_in_rows() -> None:
    rows = [panel["title"] for panel in DASHBOARD["panels"] if panel["type"] == "row"]
    assert rows == ["Traffic", "Latency", "Batching", "Model", "Drift", "Feedback", "Process"]
    sources = [item["datasource"]["uid"] for panel in PANELS for item in (panel, *panel["targets"])]
    assert set(sources) == {"${datasource}"}
    ids = [panel["id"] for panel in DASHBOARD["panels"]]
    assert len(set(ids)) == len(ids)
    places = [(panel["gridPos"]["x"], panel["gridPos"]["y"]) for panel in DASHBOARD["panels"]]
    assert len(set(places)) == len(places)


def test_what_grafana_reads_at_its_start_names_the_same_things() -> None:
    (source,) = yaml.safe_load((FOLDER / "grafana/provisioning/datasources/prometheus.yml").read_text())["datasources"]
    assert source["type"] == "prometheus" == DASHBOARD["templating"]["list"][0]["query"]
    (provider,) = yaml.safe_load((FOLDER / "grafana/provisioning/dashboards/enzyme-stability.yml").read_text())[
        "providers"
    ]
    assert provider["options"]["path"] in (FOLDER / "README.md").read_text()


def test_every_alert_says_what_to_do() -> None:
    readme = (FOLDER / "README.md").read_text()
    assert [rule["alert"] for rule in RULES if f"`{rule['alert']}`" not in readme] == []
    assert {rule["labels"]["severity"] for rule in RULES} == {"critical", "warning", "info"}


def program(name: str) -> str:
    found = shutil.which(name)
    if found is None and os.environ.get("ENZYME_STABILITY_NEEDS_PROMETHEUS") == "1":
        pytest.fail(f"{name} is not installed, and ENZYME_STABILITY_NEEDS_PROMETHEUS is 1")
    if found is None:
        pytest.skip(f"{name} is not installed")
    return found


@pytest.mark.parametrize(
    "arguments", [("check", "config", "prometheus.yml"), ("test", "rules", "alerts.test.yml")], ids=" ".join
)
def test_promtool_agrees(arguments: tuple[str, ...]) -> None:
    done = subprocess.run(
        [program("promtool"), *arguments], cwd=FOLDER, capture_output=True, text=True, check=False, timeout=120
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_every_alert_is_tested() -> None:
    tested: dict[str, set[bool]] = defaultdict(set)
    for group in yaml.safe_load((FOLDER / "alerts.test.yml").read_text())["tests"]:
        for one in group["alert_rule_test"]:
            tested[one["alertname"]].add(bool(one.get("exp_alerts")))
    assert tested == {rule["alert"]: {True, False} for rule in RULES}  # where it is raised, and where it is not


class Service:
    """Serves a telemetry to be scraped; ``traffic`` happens between two scrapes."""

    def __init__(self) -> None:
        self.telemetry = busy_telemetry()
        self.telemetry.set_feedback(rows=0)
        self.traffic: Callable[[Telemetry], None] = healthy_traffic
        self.content_types: set[str] = set()
        service = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                service.traffic(service.telemetry)
                text, content_type = service.telemetry.exposition(self.headers.get("Accept", ""))
                service.content_types.add(content_type.partition(";")[0])
                self.send_response(200)
                self.send_header("Content-Type", content_type)
                self.end_headers()
                self.wfile.write(text)

            def log_message(self, *_: object) -> None: ...

        self._server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.port = self._server.server_port
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.05})
        self._thread.start()

    def stop(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


class Prometheus:
    """A real one, with the configuration that is shipped, but in a hurry."""

    def __init__(self, folder: Path, target: int) -> None:
        rules = (FOLDER / "alerts.yml").read_text()
        rules = re.sub(r"for: \d+[mh]", "for: 2s", re.sub(r"\[\d+m\]", "[4s]", rules))
        (folder / "alerts.yml").write_text(rules)
        config = yaml.safe_load((FOLDER / "prometheus.yml").read_text())
        config["global"] = {"scrape_interval": "400ms", "scrape_timeout": "400ms", "evaluation_interval": "250ms"}
        config["scrape_configs"][0]["static_configs"][0]["targets"] = [f"127.0.0.1:{target}"]
        (folder / "prometheus.yml").write_text(yaml.safe_dump(config))
        with socket.socket() as listening:
            listening.bind(("127.0.0.1", 0))
            self._address = f"127.0.0.1:{listening.getsockname()[1]}"
        self._log = (folder / "log").open("w+")
        self._process = subprocess.Popen(
            [
                program("prometheus"),
                f"--config.file={folder / 'prometheus.yml'}",
                f"--storage.tsdb.path={folder / 'data'}",
                f"--web.listen-address={self._address}",
                "--log.level=warn",
            ],
            stderr=self._log,
        )

    def get(self, path: str, **parameters: str) -> Any:
        query = urllib.parse.urlencode(parameters)
        with urllib.request.urlopen(f"http://{self._address}{path}?{query}", timeout=10) as answer:
            return json.load(answer)["data"]

    def alerts(self) -> dict[str, str]:
        """State of each alert that is pending or firing."""
        return {one["labels"]["alertname"]: one["state"] for one in self.get("/api/v1/alerts")["alerts"]}

    def query(self, expression: str) -> list[float]:
        answer = self.get("/api/v1/query", query=expression)["result"]
        return [float(series["value"][1]) for series in answer]

    def wait_until(self, reached: Callable[[], bool], seconds: float = 30) -> None:
        until = time.monotonic() + seconds
        while True:
            try:
                if reached():
                    return
            except OSError:
                if self._process.poll() is not None:
                    self._log.seek(0)
                    raise AssertionError(self._log.read()) from None
            assert time.monotonic() < until, self.alerts()
            time.sleep(0.1)

    def stop(self) -> None:
        self._process.terminate()
        self._process.wait(30)
        self._log.close()


@pytest.fixture(scope="module")
def service() -> Iterator[Service]:
    program("prometheus")
    running = Service()
    yield running
    running.stop()


@pytest.fixture(scope="module")
def prometheus(service: Service, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Prometheus]:
    running = Prometheus(tmp_path_factory.mktemp("prometheus"), service.port)
    try:
        running.wait_until(lambda: running.query("up") == [1])
        yield running
    finally:
        running.stop()


def test_a_healthy_service_raises_no_alert(prometheus: Prometheus, service: Service) -> None:
    """One error in 200 is below the threshold, and a coverage that nobody has measured is none."""
    prometheus.wait_until(lambda: bool(prometheus.query("sum_over_time(up[1m]) > 9")))
    (group,) = prometheus.get("/api/v1/rules")["groups"]
    assert {rule["name"]: rule["health"] for rule in group["rules"]} == {rule["alert"]: "ok" for rule in RULES}
    assert prometheus.query('ALERTS{alertstate="firing"}') == []
    prometheus.wait_until(lambda: prometheus.alerts() == {})
    assert all(math.isnan(value) for value in prometheus.query("enzyme_stability_feedback_coverage"))
    assert service.content_types == {"application/openmetrics-text"}


@pytest.mark.parametrize(("title", "expression"), TARGETS, ids=[f"{title} {k}" for k, (title, _) in enumerate(TARGETS)])
def test_every_panel_shows_something(prometheus: Prometheus, title: str, expression: str) -> None:
    asked = expression.replace("$__rate_interval", "4s").replace("$job", "enzyme-stability").replace("$instance", ".*")
    assert "$" not in asked
    prometheus.wait_until(lambda: bool(prometheus.query(asked)))
    if title not in {"Error on measured proteins", "Coverage"}:  # nothing has been measured
        assert all(math.isfinite(value) for value in prometheus.query(asked))


def test_alerts_are_pending_then_fire_and_then_are_over(prometheus: Prometheus, service: Service) -> None:
    waiting = {
        "EnzymeStabilityErrors",
        "EnzymeStabilityQueueNearlyFull",
        "EnzymeStabilityRefusing",
        "EnzymeStabilityCoverage",
        "EnzymeStabilityDrift",
        "EnzymeStabilitySlow",
    }
    dropped = 0

    def trouble(telemetry: Telemetry) -> None:
        nonlocal dropped
        dropped += 10
        healthy_traffic(telemetry)
        for _ in range(20):
            telemetry.observe_request("/v1/predict", "POST", 500, 3.0)
            telemetry.observe_request("/v1/predict", "POST", 429, 0.001)
        telemetry.set_queue(9, 900, 1000)
        telemetry.set_prediction_log(written=0, dropped=dropped, failures=0, waiting=0)
        telemetry.set_drift({"length": 0.4}, checked_at=time.time())
        telemetry.set_feedback(rows=100, coverage=0.5, asked_coverage=0.9)

    seen: dict[str, list[str]] = defaultdict(list)

    def all_fire() -> bool:
        now = prometheus.alerts()
        for name, state in now.items():
            if state not in seen[name]:
                seen[name].append(state)
        return all(now.get(name) == "firing" for name in {*waiting, "EnzymeStabilityPredictionLogDropping"})

    service.traffic = trouble
    prometheus.wait_until(all_fire)
    assert {name: seen[name] for name in waiting} == {name: ["pending", "firing"] for name in waiting}
    fired = {name for name, states in seen.items() if "firing" in states}
    assert fired == {*waiting, "EnzymeStabilityPredictionLogDropping"}

    service.telemetry.set_drift({"length": 0.1}, checked_at=time.time())
    service.telemetry.set_feedback(rows=100, coverage=0.88, asked_coverage=0.9)
    service.traffic = healthy_traffic
    prometheus.wait_until(lambda: prometheus.alerts() == {})


def test_a_service_that_ends_raises_an_alert(prometheus: Prometheus, service: Service) -> None:
    service.stop()
    prometheus.wait_until(lambda: prometheus.alerts().get("EnzymeStabilityDown") == "firing")
