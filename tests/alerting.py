"""Whether alert rules fire, by Prometheus' own word: what processes told becomes the input of `promtool test rules`."""

import subprocess
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Final

import httpx
import yaml
from prometheus_client.parser import text_string_to_metric_families

from deploy.local.layout import CHECKOUT
from deploy.monitoring.promtool import promtool

RULES: Final = CHECKOUT / "deploy" / "monitoring" / "alerts.yml"
STEP_S: Final = 30
STEPS: Final = 24
"""Twelve minutes of health, then as many in which the condition stands."""
STEPS_OF_AN_HOUR: Final = 3_600 // STEP_S + STEPS
_SCRAPED_WITHIN_S: Final = 3.0

Series = dict[str, float]
"""What Prometheus would hold of one scrape: series, by name and labels as they are written, to value."""


def scrape(targets: Mapping[str, str]) -> Series:
    """One scrape of every process (service name to base URL), as Prometheus does it."""
    found: Series = {}
    for service, url in targets.items():
        where = {"job": "medchain", "service": service.removesuffix("-1"), "instance": service}
        try:
            text = httpx.get(f"{url}/metrics", timeout=_SCRAPED_WITHIN_S, trust_env=False).raise_for_status().text
        except httpx.HTTPError:
            found |= {_written("up", where): 0}
            continue
        found |= {_written("up", where): 1} | told(text, where)
    return found


def told(text: str, where: Mapping[str, str] | None = None) -> Series:
    """The series of a process' text that the rules can look at."""
    rules = RULES.read_text(encoding="utf-8")
    return {
        _written(sample.name, {**sample.labels, **(where or {})}): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
        if sample.name in rules
    }


def check_fires(folder: Path, alerts: Collection[str], healthy: Series, during: Series, steps: int = STEPS) -> None:
    """Each of these alerts fires while the condition stands, and did not before. Prometheus evaluates the rules.

    `steps`: of health, and of the condition; more than usual for what is waited for longer.
    """
    before_s, after_s = STEP_S * (steps - 2), STEP_S * (2 * steps - 2)
    expressions = [f'count(ALERTS{{alertname="{each}", alertstate="firing"}}) > bool 0' for each in alerts]
    test = {
        "interval": f"{STEP_S}s",
        "input_series": [
            {"series": name, "values": _values(name, healthy, during, steps)}
            for name in sorted(healthy.keys() | during)
        ],
        "promql_expr_test": [
            *({"expr": each, "eval_time": f"{before_s}s", "exp_samples": []} for each in expressions),
            *(
                {"expr": each, "eval_time": f"{after_s}s", "exp_samples": [{"labels": "{}", "value": 1}]}
                for each in expressions
            ),
        ],
    }
    file = folder / "alerts_test.yml"
    file.write_text(yaml.safe_dump({"rule_files": [str(RULES)], "evaluation_interval": "30s", "tests": [test]}))
    done = subprocess.run([promtool(), "test", "rules", str(file)], capture_output=True, text=True, check=False)  # noqa: S603  ours
    assert done.returncode == 0, f"{sorted(alerts)}: {done.stdout}{done.stderr}"


def _values(name: str, healthy: Series, during: Series, steps: int) -> str:
    """A series over time. What counts goes on as it went between the scrapes; an age grows with time."""
    first = f"{healthy[name]}x{steps - 1}" if name in healthy else f"_x{steps - 1}"
    if name not in during:
        return f"{first} stale _x{steps - 1}"
    value, each_step = during[name], 0.0
    metric = name.partition("{")[0]
    if metric.endswith("_total"):
        each_step = max(0.0, value - healthy.get(name, 0.0))
    elif metric.endswith("_seconds") and value > 0:
        each_step = STEP_S
    return f"{first} {value}+{each_step}x{steps - 1}"


def _written(name: str, labels: Mapping[str, str]) -> str:
    written = ",".join(f'{label}="{value}"' for label, value in sorted(labels.items()))
    return f"{name}{{{written}}}"
