"""The bill of docs/aws-operations.md is calculated, and it is of what the templates make."""

from __future__ import annotations

import json
import math
import re

from tests.architecture.source import ROOT
from tests.unit.cloudformation.templates import BARE, CLOUDFRONT, studio

ROW = re.compile(r"^\| ([^|]+) \| ([\d.x h]+) \| ([\d.]+) \| ([\d.,]+) \|$", re.MULTILINE)


def rows() -> list[tuple[str, str, float, float]]:
    text = (ROOT / "docs/aws-operations.md").read_text(encoding="utf-8")
    return [(what, count, float(price), float(month)) for what, count, price, month in ROW.findall(text)]


def test_every_amount_is_its_count_times_its_price() -> None:
    assert len(rows()) >= 18
    for what, count, price, month in rows():
        factors = [float(each) for each in re.findall(r"[\d.]+", count)]
        assert abs(math.prod(factors) * price - month) < 0.006, what


def test_the_sum_is_that_of_the_rows_above_it() -> None:
    text = (ROOT / "docs/aws-operations.md").read_text(encoding="utf-8")
    fixed = text[text.index("What is always there") : text.index("**Together**")]
    total = float(re.search(r"\*\*Together\*\* \| \| \| \*\*([\d.]+)\*\*", text)[1])  # type: ignore[index]
    assert abs(sum(float(each[3]) for each in ROW.findall(fixed)) - total) < 0.006


def test_what_is_counted_is_what_is_made() -> None:
    made = studio(CLOUDFRONT)
    counts = {what: count for what, count, _, _ in rows()}
    tasks = [made[name].resources()["Service"]["Properties"]["DesiredCount"] for name in ("portal", "webui")]
    assert (
        counts["Fargate, processors of four tasks (web UI 2, portal 2)"] == f"{sum(map(int, tasks))} x 730 h"
    )
    alarms = [
        each
        for each in made["observability"].resources().values()
        if each["Type"] == "AWS::CloudWatch::Alarm"
    ]
    policies = [
        each
        for stack in made.values()
        for each in stack.resources().values()
        if each["Type"] == "AWS::ApplicationAutoScaling::ScalingPolicy"
        and each["Properties"]["PolicyType"] == "TargetTrackingScaling"
    ]
    assert len(policies) == 2
    assert counts["Alarms"] == str(len(alarms) + 2 * len(policies)), "each policy makes two of its own"
    secrets = [
        each
        for stack in studio(BARE).values()
        for each in stack.resources().values()
        if each["Type"] == "AWS::SecretsManager::Secret"
    ]
    assert len(secrets) + 3 == int(counts["Secrets (database, admin, header, three keys)"])


def test_the_registry_forgets_no_image_that_has_a_tag() -> None:
    for each in studio(CLOUDFRONT)["images"].resources().values():
        if each["Type"] == "AWS::ECR::Repository":
            (rule,) = json.loads(each["Properties"]["LifecyclePolicy"]["LifecyclePolicyText"])["rules"]
            assert rule["selection"]["tagStatus"] == "untagged"


def test_cluster_and_database_are_as_a_new_account_and_a_pinned_version_need_them() -> None:
    made = studio(CLOUDFRONT)
    assert "CapacityProviders" not in made["network"].resources()["Cluster"]["Properties"]
    assert made["data"].resources()["DatabaseWriter"]["Properties"]["AutoMinorVersionUpgrade"] is False


def test_every_alarm_is_explained() -> None:
    text = (ROOT / "docs/aws-operations.md").read_text(encoding="utf-8")
    for each in studio(CLOUDFRONT)["observability"].resources().values():
        if each["Type"] == "AWS::CloudWatch::Alarm":
            name = each["Properties"]["AlarmName"].removeprefix("atelier-studio-")
            assert f"`{name}`" in text, name


def test_the_dashboard_shows_figures_that_the_portal_publishes() -> None:
    body = studio(CLOUDFRONT)["observability"].resources()["Dashboard"]["Properties"]["DashboardBody"]
    shown = [
        (expression, name)
        for each in json.loads(body)["widgets"]
        for (metric,) in [each["properties"]["metrics"][:1]]
        if isinstance(metric[0], dict)
        for expression in [metric[0]["expression"]]
        for name in re.findall(r'MetricName="(\w+)"', expression)
    ]
    source = "".join(path.read_text() for path in (ROOT / "portal/adapters/aws").glob("*.py"))
    own = [name for expression, name in shown if "{Atelier,Endpoint}" in expression]
    assert len(own) >= 5
    assert [name for name in own if f'"{name}"' not in source] == []


def test_every_template_is_described() -> None:
    text = (ROOT / "docs/aws-architecture.md").read_text(encoding="utf-8")
    for path in (ROOT / "cloudformation").glob("*.yaml"):
        assert f"`{path.name}`" in text, path.name
