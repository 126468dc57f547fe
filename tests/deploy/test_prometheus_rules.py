"""The shipped alerts: right for Prometheus itself, about gauges that there are, and firing where they should."""

import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml
from prometheus_client import REGISTRY

from service import metrics, parts
from service.web.observed import MEASURES

FOLDER = Path(__file__).parents[2] / "deploy/prometheus"
LABELS = {"model", "feature", "severity", "rule"}  # of an alert: few, and none that changes while it fires


@pytest.fixture(scope="session")
def promtool() -> Path:
    """Prometheus's own checker, found or built once for all."""
    return parts.find("promtool")


def alerts() -> list[dict[str, Any]]:
    groups = yaml.safe_load((FOLDER / "rules.yml").read_text())["groups"]
    return [rule for group in groups for rule in group["rules"]]


@pytest.mark.parametrize(
    "arguments",
    [
        pytest.param(["check", "rules", "--lint-fatal", "rules.yml"], id="rules"),
        pytest.param(["check", "config", "prometheus.yml"], id="config"),
        pytest.param(["test", "rules", "rules_test.yml"], id="each alert fires and ends"),
    ],
)
def test_promtool_finds_nothing_wrong(promtool: Path, arguments: list[str]) -> None:
    found = subprocess.run([promtool, *arguments], cwd=FOLDER, capture_output=True, text=True, check=False, timeout=60)

    assert found.returncode == 0, found.stdout + found.stderr


def test_every_alert_has_a_test_that_makes_it_fire() -> None:
    tests = yaml.safe_load((FOLDER / "rules_test.yml").read_text())["tests"]
    fired = {one["alertname"] for test in tests for one in test["alert_rule_test"] if one["exp_alerts"]}

    assert fired == {rule["alert"] for rule in alerts()}


def test_alerts_are_about_gauges_and_labels_that_there_are() -> None:
    known = {family.name for family in REGISTRY.collect() if family.name.startswith("kfp_triggers_")}
    text = " ".join(rule["expr"] for rule in alerts())

    assert metrics.feature_drift  # they are made at its import
    assert set(re.findall(r"kfp_triggers_\w+", text)) <= known
    drifts = re.findall(r'kfp_triggers_feature_drift\{measure="(\w+)"', text)
    assert drifts
    assert set(drifts) <= set(MEASURES)


def test_an_alert_has_few_labels_and_says_what_to_do() -> None:
    for rule in alerts():
        by = re.findall(r"\bby \((.*?)\)", rule["expr"])
        assert by, rule["alert"]
        assert {label.strip() for one in by for label in one.split(",")} | set(rule["labels"]) <= LABELS
        assert "kfp-triggers " in rule["annotations"]["description"]
