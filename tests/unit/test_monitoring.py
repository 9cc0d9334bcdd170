"""Prometheus' configuration and the dashboard: every process is scraped, and what is shown is what processes tell."""

import json
import re
import subprocess
from pathlib import Path
from typing import Any, Final

import yaml
from prometheus_client import generate_latest
from prometheus_client.parser import text_string_to_metric_families

from deploy.local.layout import CHECKOUT
from deploy.monitoring.promtool import promtool
from deploy.services import SERVICES
from services.health import TroubleReason
from tests.unit.test_telemetry import everything

MONITORING: Final = CHECKOUT / "deploy" / "monitoring"
DASHBOARD: Final[dict[str, Any]] = json.loads((MONITORING / "grafana" / "medication-chain.json").read_text())


def told() -> set[str]:
    """Every series name that the platform tells, and the parts of a histogram that stand for its name."""
    families = text_string_to_metric_families(generate_latest(everything()).decode())
    return {sample.name for family in families for sample in family.samples} | {"medchain_trouble"}


def metrics_in(text: str) -> set[str]:
    return set(re.findall(r"\bmedchain_\w+", text))


def test_every_process_is_scraped_at_the_port_that_it_is_told() -> None:
    (job,) = yaml.safe_load((MONITORING / "prometheus.yml").read_text())["scrape_configs"]
    scraped = {each["labels"]["service"]: each["targets"] for each in job["static_configs"]}
    assert scraped == {each.name: [f"{each.name}:{each.port}"] for each in SERVICES if not each.many}


def test_each_of_several_processes_of_a_service_is_scraped_and_bears_its_name() -> None:
    (job,) = yaml.safe_load((MONITORING / "prometheus.yml").read_text())["scrape_configs"]
    found = [(each["names"], each["type"], each["port"]) for each in job["dns_sd_configs"]]
    assert found == [([each.name], "A", each.port) for each in SERVICES if each.many]
    (named,) = job["relabel_configs"]
    assert (named["source_labels"], named["target_label"]) == (["__meta_dns_name"], "service")
    assert re.fullmatch(named["regex"], "") is None, "the others have their label"


def test_prometheus_understands_its_configuration_and_the_rules() -> None:
    done = subprocess.run(  # noqa: S603  ours
        [promtool(), "check", "config", str(MONITORING / "prometheus.yml")], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_what_alerts_and_dashboard_look_at_is_told_by_some_process() -> None:
    alerts = yaml.safe_load((MONITORING / "alerts.yml").read_text())
    expressions = [rule["expr"] for group in alerts["groups"] for rule in group["rules"]]
    expressions += [target["expr"] for panel in DASHBOARD["panels"] for target in panel["targets"]]
    looked_at = set[str]().union(*map(metrics_in, expressions))
    assert len(looked_at) > 20
    assert looked_at - told() == set()


# What nobody is woken for: a beginning; what another process says of the same; what the processor tells by metrics of its
# own; and a check that was slow, which a machine with much to do makes.
WITHOUT_ALERT: Final = {"not_started", "list_unavailable", "partition_stopped", "partition_stuck", "not_checked"}


def test_every_reason_why_a_process_is_not_ready_raises_an_alert_or_need_not() -> None:
    alerts = yaml.safe_load((MONITORING / "alerts.yml").read_text())
    expressions = "".join(rule["expr"] for group in alerts["groups"] for rule in group["rules"])
    patterns = re.findall(r'medchain_trouble\{reason=~?"([^"]+)"\}', expressions)
    raised = {each.value for each in TroubleReason if any(re.fullmatch(pattern, each) for pattern in patterns)}
    assert raised == {each.value for each in TroubleReason} - WITHOUT_ALERT


def test_every_expression_of_the_dashboard_is_one_that_prometheus_understands(tmp_path: Path) -> None:
    exprs = [target["expr"] for panel in DASHBOARD["panels"] for target in panel["targets"]]
    rules = [{"record": f"panel:{n}", "expr": each.replace("$__rate_interval", "1m")} for n, each in enumerate(exprs)]
    file = tmp_path / "dashboard.yml"
    file.write_text(yaml.safe_dump({"groups": [{"name": "dashboard", "rules": rules}]}))
    done = subprocess.run([promtool(), "check", "rules", str(file)], capture_output=True, text=True, check=False)  # noqa: S603  ours
    assert done.returncode == 0, done.stdout + done.stderr


def test_panels_lie_beside_one_another() -> None:
    places = [
        (x, y)
        for panel in DASHBOARD["panels"]
        for grid in (panel["gridPos"],)
        for x in range(grid["x"], grid["x"] + grid["w"])
        for y in range(grid["y"], grid["y"] + grid["h"])
    ]
    assert len(places) == len(set(places))
    assert max(x for x, _ in places) < 24
