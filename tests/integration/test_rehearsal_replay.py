"""A day of work against policies and prices: what waiting costs, by command and as a picture."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest

from portal.cli import main
from rehearsal.days import Arrival, read, synthetic
from rehearsal.replay import Plan, replayed
from tests.jobs_studio import Studio

RESOURCE = "endpoint/e/variant/main"


def plan(least: int, *, idle_minutes: int = 5, price: float = 1.0) -> Plan:
    """An endpoint of at most two instances that follows the demand, four parts each."""
    demand = {
        "Namespace": "Atelier",
        "MetricName": "Demand",
        "Dimensions": [{"Name": "Endpoint", "Value": "e"}],
    }
    wake = {"MetricIntervalLowerBound": 0.0, "MetricIntervalUpperBound": 4.0, "ScalingAdjustment": 1}
    more = {"MetricIntervalLowerBound": 4.0, "ScalingAdjustment": 2}
    fewer = {"MetricIntervalUpperBound": 0.0, "ScalingAdjustment": -1}
    requests: list[tuple[str, dict[str, Any]]] = [
        ("register_scalable_target", {"ResourceId": RESOURCE, "MinCapacity": least, "MaxCapacity": 2})
    ]
    for name, kind, steps, comparison, period, periods in (
        ("out", "ExactCapacity", [wake, more], "GreaterThanThreshold", 10, 1),
        ("in", "ChangeInCapacity", [fewer], "LessThanOrEqualToThreshold", 60, idle_minutes),
    ):
        configuration = {"AdjustmentType": kind, "StepAdjustments": steps, "Cooldown": 60}
        policy = {"PolicyName": name, "ResourceId": RESOURCE, "StepScalingPolicyConfiguration": configuration}
        alarm = {
            "AlarmName": name,
            "AlarmActions": [f"resource/sagemaker/{RESOURCE}:policyName/{name}"],
            "ComparisonOperator": comparison,
            "Threshold": 0.0,
            "EvaluationPeriods": periods,
            "Metrics": [{"Id": "d", "MetricStat": {"Metric": demand, "Period": period, "Stat": "Maximum"}}],
        }
        requests += [("put_scaling_policy", policy), ("put_metric_alarm", alarm)]
    return Plan(f"from {least}", "e", RESOURCE, "e", "ml.g5.xlarge", price, 4, max(1, least), tuple(requests))


def test_a_day_is_made_up_the_same_again_for_the_same_seed_and_in_office_hours() -> None:
    day = synthetic(5, seed=3)
    assert day == synthetic(5, seed=3) != synthetic(5, seed=4)
    assert 100 < len(day) < 2000
    assert all(7 * 3600 <= each.at < 22 * 3600 for each in day)


def test_an_endpoint_that_sleeps_costs_less_and_lets_the_first_wait_for_its_start() -> None:
    day = [Arrival(10 * 3600.0, 4.0), Arrival(10 * 3600.0 + 60.0, 4.0), Arrival(15 * 3600.0, 4.0)]
    awake, asleep = replayed(plan(1), day), replayed(plan(0), day)
    assert len(awake.waits) == len(asleep.waits) == 3
    assert max(awake.waits) < 1.0
    assert awake.monthly == pytest.approx(24 * 22 * 1.0, rel=0.05)
    assert asleep.monthly < awake.monthly / 10
    starting = 120 + 90 + 45
    assert starting * 0.85 < asleep.waited(0.95) < starting * 1.15 + 30, "the policy asks every ten seconds"


def test_a_crowd_gets_a_second_instance_and_every_part_its_answer() -> None:
    crowd = [Arrival(36_000.0 + number, 20.0) for number in range(60)]
    outcome = replayed(plan(0, idle_minutes=2), crowd, seed=5)
    assert (len(outcome.waits), outcome.lost, outcome.most) == (60, 0, 2)
    assert outcome.waited(0.5) <= outcome.waited(0.95)


def test_the_command_compares_what_aws_would_be_asked_for_and_draws_it(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    file, plot = tmp_path / "day.jsonl", tmp_path / "plot.svg"
    lines = [{"at": 1_800_000_000.0 + each, "seconds": 5.0} for each in range(0, 3000, 300)]
    file.write_text("\n".join(map(json.dumps, lines)))
    given = [
        "--timelines",
        str(file),
        "--plot",
        str(plot),
        "--type",
        "ml.g5.xlarge",
        "--type",
        "ml.g6.xlarge",
    ]
    assert (
        main(
            [
                "rehearse",
                *given,
                "--speed",
                "ml.g6.xlarge=0.5",
                "--idle-seconds",
                "300",
                "--min-instances",
                "0",
            ]
        )
        == 0
    )
    said = capfd.readouterr().out
    assert said.startswith("10 parts in a day\n")
    told = [line.split() for line in said.splitlines()[2:4]]
    assert {row[0] for row in told} == {"ml.g5.xlarge", "ml.g6.xlarge"}
    costs = [float(row[6]) for row in told]
    assert 0.0 < costs[0] <= costs[1]
    drawn = ElementTree.parse(plot).getroot()  # noqa: S314  # written by ourselves a moment ago
    assert len([each for each in drawn.iter() if each.tag.endswith("circle")]) == 4
    assert main(["rehearse", "--type", "ml.nothing"]) == 1
    assert "'ml.nothing' is no kind of instances" in capfd.readouterr().err


def test_a_studios_own_day_can_be_written_down_without_saying_whose_it_was(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    url = f"sqlite:///{tmp_path / 'atelier.db'}"
    studio = Studio(url, tmp_path)
    studio.submit(studio.user("ann"), prompt="a secret")
    (sent,) = studio.turn()
    began = studio.clock.now()
    studio.fleet.succeed(sent, timeline={"received": began, "steps": began + 1.0, "storing": began + 4.5})
    studio.turn()
    studio.close()
    monkeypatch.setenv("ATELIER_DATA_DIR", str(tmp_path))
    monkeypatch.setenv("ATELIER_DATABASE_URL", url)
    out = tmp_path / "day.jsonl"
    assert main(["timelines", str(out)]) == 0
    assert "1 parts written" in capsys.readouterr().out
    written = json.loads(out.read_text())
    assert (set(written), written["seconds"]) == ({"at", "seconds"}, 3.5)
    assert read(out) == [Arrival(written["at"] % 86_400, 3.5)]
