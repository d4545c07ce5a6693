"""A real Prometheus scrapes a real server; dashboard and alerts ask for what there is."""

from __future__ import annotations

import json
import pathlib
import re
import subprocess
from collections.abc import Iterator

import pytest
import yaml
from prometheus_client.parser import text_string_to_metric_families

from cloud.metrics import Metrics
from edge_runtime import TextGenerator
from tests.deploy.programs import DEPLOY, adapted, api, body, find, running, until
from tests.servers import TrunkServer, free_port

PROMPT = list(range(10, 40))
_NAME = re.compile(r"\b(?:lambda_split|process|python)_[a-z_]+\b")


def dashboard_expressions() -> list[str]:
    dashboard = json.loads((DEPLOY / "grafana-dashboard.json").read_text(encoding="utf-8"))
    return [target["expr"] for panel in dashboard["panels"] for target in panel.get("targets", ())]


def alert_expressions() -> list[str]:
    rules = yaml.safe_load((DEPLOY / "alerts.yml").read_text(encoding="utf-8"))
    return [rule["expr"] for group in rules["groups"] for rule in group["rules"]]


def exported() -> dict[str, list[dict[str, str]]]:
    """The samples that a server exports: their labels by name."""
    found: dict[str, list[dict[str, str]]] = {}
    for family in text_string_to_metric_families(Metrics().render().decode()):
        for sample in family.samples:
            found.setdefault(sample.name, []).append(sample.labels)
    return found


@pytest.mark.parametrize("expression", [*dashboard_expressions(), *alert_expressions()])
def test_what_is_asked_for_exists(expression) -> None:
    names = set(_NAME.findall(expression))
    known = exported()
    assert names or "up{" in expression
    assert names <= known.keys()
    for label, sign, wanted in re.findall(r'(\w+)(=~|=)"([^"$]*)"', expression):
        if label != "job":
            values = {labels[label] for name in names for labels in known[name] if label in labels}
            for each in wanted.split("|") if sign == "=~" else [wanted]:
                assert each in values, (label, each)


def test_everything_that_is_counted_is_shown() -> None:
    shown = {name for expression in dashboard_expressions() for name in _NAME.findall(expression)}
    families = {
        family.name
        for family in text_string_to_metric_families(Metrics().render().decode())
        if family.name.startswith("lambda_split") and not family.name.endswith("_created")
    }
    unseen = {each for each in families if not any(name.startswith(each) for name in shown)}
    assert not unseen


def test_the_dashboard_can_be_imported() -> None:
    dashboard = json.loads((DEPLOY / "grafana-dashboard.json").read_text(encoding="utf-8"))
    panels = dashboard["panels"]
    assert len({panel["id"] for panel in panels}) == len(panels)
    assert {item["name"] for item in dashboard["templating"]["list"]} == {"datasource", "instance"}
    for panel in panels:
        if panel["type"] != "row":
            assert panel["fieldConfig"]["defaults"]["unit"]
            assert all("$instance" in target["expr"] for target in panel["targets"])
    placed = [panel["gridPos"] for panel in panels]
    for index, one in enumerate(placed):
        assert one["x"] + one["w"] <= 24
        for other in placed[index + 1 :]:
            apart = one["x"] + one["w"] <= other["x"] or other["x"] + other["w"] <= one["x"]
            below = one["y"] + one["h"] <= other["y"] or other["y"] + other["h"] <= one["y"]
            assert apart or below


@pytest.mark.parametrize(
    "arguments",
    [
        ("check", "config", DEPLOY / "prometheus.yml"),
        ("check", "rules", DEPLOY / "alerts.yml"),
        ("test", "rules", pathlib.Path(__file__).parent / "alerts_test.yml"),
    ],
    ids=["config", "rules", "alerts"],
)
def test_promtool_agrees(arguments) -> None:
    command = [find("promtool"), *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_promtool_finds_nothing_to_object_to_in_the_metrics() -> None:
    metrics = Metrics()
    metrics.step(sessions=1, decode_tokens=1, prompt_tokens=0, seconds=0.1)
    command = [find("promtool"), "check", "metrics"]
    done = subprocess.run(
        command, input=metrics.render(), capture_output=True, timeout=60, check=False
    )
    objections = [
        line
        for line in (done.stdout + done.stderr).decode().splitlines()
        if "_created " not in line
    ]
    assert objections == []


@pytest.fixture
def server(checkpoint) -> Iterator[TrunkServer]:
    port = free_port()
    made = TrunkServer(str(checkpoint("llama")), "--metrics-port", str(port))
    made.metrics_port = port
    try:
        made.start()
        yield made
    finally:
        made.close()


@pytest.mark.slow
def test_prometheus_scrapes_a_server_and_answers_the_dashboard(server, bundle, tmp_path) -> None:
    port, log = free_port(), tmp_path / "prometheus.log"
    changes = {
        "10.0.0.11:9464": f"127.0.0.1:{server.metrics_port}",
        "10.0.0.12:9464": f"127.0.0.1:{free_port()}",  # a replica that is down
        "scrape_interval: 15s": "scrape_interval: 500ms",
        "evaluation_interval: 15s": "evaluation_interval: 500ms",
    }
    file = adapted("prometheus.yml", tmp_path, changes)
    adapted("alerts.yml", tmp_path, {})
    url = f"http://127.0.0.1:{port}"
    command = [
        find("prometheus"),
        f"--config.file={file}",
        f"--storage.tsdb.path={tmp_path / 'data'}",
        f"--web.listen-address=127.0.0.1:{port}",
    ]

    def tokens(kind: str) -> float | None:
        query = f'lambda_split_tokens_total{{kind="{kind}"}}'
        found = api(url, "query", query=query)["result"]
        return float(found[0]["value"][1]) if found and float(found[0]["value"][1]) else None

    with running(*command, log=log):
        until(lambda: body(f"{url}/-/ready"), log=log)
        with TextGenerator.open(bundle("llama"), server.url) as generator:
            result = generator.generate(PROMPT, max_new_tokens=9)
        assert until(lambda: tokens("prompt"), log=log) == len(PROMPT)
        wanted = len(result.token_ids) - 1  # the last token never goes through the trunk
        until(lambda: tokens("decode") == wanted or None, log=log)

        def scraped() -> bool | None:
            found = api(url, "query", query="up")["result"]
            seen = {item["metric"]["instance"]: item["value"][1] for item in found}
            # Each has its own first time, and at this interval one scrape may take too long.
            live = seen.pop(f"127.0.0.1:{server.metrics_port}", None)
            return True if live == "1" and list(seen.values()) == ["0"] else None

        until(scraped, log=log)
        for expression in dashboard_expressions():
            asked = expression.replace("$instance", ".*").replace("$__rate_interval", "1m")
            api(url, "query", query=asked)

        def evaluated() -> dict[str, str] | None:
            rules = api(url, "rules")["groups"][0]["rules"]
            assert len(rules) == len(alert_expressions())
            if any(rule["health"] != "ok" for rule in rules):
                return None
            found = {rule["name"]: rule["state"] for rule in rules}
            # Noticed some evaluations after the first failed scrape; until the other replica has
            # been scraped, too, it looks as if all were down.
            noticed = found["LambdaSplitReplicaDown"] in {"pending", "firing"}
            return found if noticed and found["LambdaSplitAllReplicasDown"] != "pending" else None

        states = until(evaluated, log=log)
        assert states["LambdaSplitAllReplicasDown"] == "inactive"
