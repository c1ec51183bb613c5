"""The rehearsal's SageMaker, asked over HTTP with boto3: life cycles, answers, messages, scaling, faults."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
from botocore.exceptions import ClientError

from tests.rehearsed import BUCKET, Account, rehearsed


@pytest.fixture(scope="module")
def shared() -> Iterator[Account]:
    """One account for the tests of this module; each uses an endpoint of its own."""
    with rehearsed() as account:
        yield account


@pytest.fixture
def account(shared: Account) -> Iterator[Account]:
    """The account without faults, alarms and messages of another test."""
    yield shared
    for name in list(shared.server.simulation.endpoints):
        shared.clock.advance(900.0)
        shared.sagemaker.delete_endpoint(EndpointName=name)
    shared.clock.advance(120.0)
    shared.faults.faults = type(shared.faults.faults)()
    alarms = [each["AlarmName"] for each in shared.cloudwatch.describe_alarms()["MetricAlarms"]]
    shared.cloudwatch.delete_alarms(AlarmNames=alarms)
    shared.notices()


def refused(call: Any, **arguments: Any) -> tuple[str, str]:
    """(code, message) of a call that is refused."""
    with pytest.raises(ClientError) as caught:
        call(**arguments)
    error = caught.value.response["Error"]
    return error["Code"], error["Message"]


def test_an_endpoint_is_created_in_minutes_and_leaves_nothing_when_it_is_deleted(account: Account) -> None:
    account.endpoint("cycle")
    assert account.status("cycle") == "Creating"
    assert account.counts("cycle") == (0, 1)
    account.clock.advance(120.0)
    assert account.status("cycle") == "Creating"
    code, told = refused(account.sagemaker.create_endpoint, EndpointName="cycle", EndpointConfigName="cycle")
    assert (code, "already existing" in told) == ("ValidationException", True)
    account.clock.advance(300.0)
    assert account.status("cycle") == "InService"
    assert account.counts("cycle") == (1, 1)
    listed = account.sagemaker.list_endpoints()["Endpoints"]
    assert [(each["EndpointName"], each["EndpointStatus"]) for each in listed] == [("cycle", "InService")]
    config = account.sagemaker.describe_endpoint_config(EndpointConfigName="cycle")
    assert config["ProductionVariants"][0]["InstanceType"] == "ml.g5.xlarge"
    account.sagemaker.delete_endpoint(EndpointName="cycle")
    assert account.status("cycle") == "Deleting"
    account.clock.advance(120.0)
    code, told = refused(account.sagemaker.describe_endpoint, EndpointName="cycle")
    assert (code, "Could not find" in told) == ("ValidationException", True)
    assert account.sagemaker.list_endpoints()["Endpoints"] == []


def test_an_answer_lies_where_it_was_promised_and_is_told_in_awss_words(account: Account) -> None:
    account.served("answers")
    said = account.ask("answers", b'{"a": 1}', InferenceId="one", ContentType="application/json")
    assert said["ResponseMetadata"]["HTTPStatusCode"] == 202
    assert said["OutputLocation"].startswith(f"s3://{BUCKET}/answers/out/")
    account.clock.advance(9.0)
    assert account.read(said["OutputLocation"]) is None
    account.clock.advance(1.0)
    assert account.read(said["OutputLocation"]) == b'{"a": 1}'
    (told,) = account.notices()
    assert told["invocationStatus"] == "Completed"
    assert told["inferenceId"] == "one"
    assert told["requestParameters"]["endpointName"] == "answers"
    assert told["requestParameters"]["inputLocation"] == f"s3://{BUCKET}/input"
    assert told["responseParameters"]["outputLocation"] == said["OutputLocation"]


def test_what_is_not_2xx_is_a_failure_with_a_place_of_its_own(account: Account) -> None:
    account.served("failures")
    said = account.ask("failures", b'{"please": "fail"}', InferenceId="two")
    account.clock.advance(10.0)
    assert account.read(said["OutputLocation"]) is None
    assert account.read(said["FailureLocation"]) == b'{"please": "fail"}'
    (told,) = account.notices()
    assert (told["invocationStatus"], told["inferenceId"]) == ("Failed", "two")
    assert "server error (500)" in told["failureReason"]


def test_requests_wait_for_room_and_for_the_first_instance_and_expire(account: Account) -> None:
    account.served("queue", concurrency=1)
    for number in range(3):
        account.ask("queue", InferenceId=f"q{number}")
    account.ask("queue", InferenceId="brief", RequestTTLSeconds=60)
    account.clock.advance(10.0)
    assert [each["inferenceId"] for each in account.notices()] == ["q0"]
    account.clock.advance(20.0)
    assert [each["inferenceId"] for each in account.notices()] == ["q1", "q2"]
    account.clock.advance(10.0)
    assert [each["invocationStatus"] for each in account.notices()] == ["Completed"]
    account.sagemaker.update_endpoint_weights_and_capacities(
        EndpointName="queue", DesiredWeightsAndCapacities=[{"VariantName": "all", "DesiredInstanceCount": 0}]
    )
    account.clock.advance(60.0)
    assert account.counts("queue") == (0, 0)
    account.ask("queue", InferenceId="late", RequestTTLSeconds=60)
    account.clock.advance(120.0)
    (told,) = account.notices()
    assert (told["inferenceId"], told["invocationStatus"]) == ("late", "Failed")


def waking(account: Account, name: str, high: int = 3) -> None:
    """From zero to as many as are asked for by the portal's Demand, and one by one down in quiet."""
    target = account.scaled(name, 0, high)
    dimensions = [{"Name": "Endpoint", "Value": "e"}]
    stat = {
        "Metric": {"Namespace": "Atelier", "MetricName": "Demand", "Dimensions": dimensions},
        "Stat": "Maximum",
    }
    for what, math, comparison, kind, step, periods, period in (
        ("out", "FILL(d, 0)", "GreaterThanThreshold", "ExactCapacity", high, 1, 10),
        ("in", "FILL(d, 0)", "LessThanOrEqualToThreshold", "ChangeInCapacity", -1, 5, 60),
    ):
        bound = {"MetricIntervalLowerBound": 0.0} if what == "out" else {"MetricIntervalUpperBound": 0.0}
        policy = account.scaling.put_scaling_policy(
            **target,
            PolicyName=f"{name}-{what}",
            PolicyType="StepScaling",
            StepScalingPolicyConfiguration={
                "AdjustmentType": kind,
                "Cooldown": 60,
                "StepAdjustments": [bound | {"ScalingAdjustment": step}],
            },
        )
        account.cloudwatch.put_metric_alarm(
            AlarmName=f"{name}-{what}",
            AlarmActions=[policy["PolicyARN"]],
            EvaluationPeriods=periods,
            Threshold=0.0,
            ComparisonOperator=comparison,
            Metrics=[
                {"Id": "d", "MetricStat": stat | {"Period": period}, "ReturnData": False},
                {"Id": "e", "Expression": math, "ReturnData": True},
            ],
        )


def test_alarms_and_policies_move_the_instances_out_of_zero_and_back(account: Account) -> None:
    account.served("scaled")
    waking(account, "scaled")
    account.clock.advance(900.0)
    assert account.counts("scaled") == (0, 0)
    assert account.status("scaled") == "InService"
    account.demand(8)
    account.clock.advance(20.0)
    assert account.counts("scaled") == (0, 3)
    assert account.status("scaled") == "Updating"
    account.clock.advance(280.0)
    assert account.counts("scaled") == (3, 3)
    account.clock.advance(1200.0)
    assert account.counts("scaled") == (0, 0)
    seen = account.cloudwatch.describe_alarms(AlarmNames=["scaled-in"])["MetricAlarms"][0]
    assert seen["StateValue"] == "ALARM"
    moves = [(each.before, each.after) for each in account.server.simulation.activities if not each.refused]
    assert moves[-4:] == [(0, 3), (3, 2), (2, 1), (1, 0)]


def test_the_backlog_is_measured_as_sagemaker_does_and_wakes_an_endpoint_at_zero(account: Account) -> None:
    account.served("backlog")
    target = account.scaled("backlog", 0, 2)
    account.sagemaker.update_endpoint_weights_and_capacities(
        EndpointName="backlog",
        DesiredWeightsAndCapacities=[{"VariantName": "all", "DesiredInstanceCount": 0}],
    )
    account.clock.advance(120.0)
    policy = account.scaling.put_scaling_policy(
        **target,
        PolicyName="knock",
        PolicyType="StepScaling",
        StepScalingPolicyConfiguration={
            "AdjustmentType": "ChangeInCapacity",
            "StepAdjustments": [{"MetricIntervalLowerBound": 0.0, "ScalingAdjustment": 1}],
        },
    )
    account.cloudwatch.put_metric_alarm(
        AlarmName="knock",
        AlarmActions=[policy["PolicyARN"]],
        Namespace="AWS/SageMaker",
        MetricName="HasBacklogWithoutCapacity",
        Dimensions=[{"Name": "EndpointName", "Value": "backlog"}],
        Statistic="Maximum",
        Period=60,
        EvaluationPeriods=1,
        Threshold=1.0,
        ComparisonOperator="GreaterThanOrEqualToThreshold",
    )
    said = account.ask("backlog")
    account.clock.advance(130.0)
    assert account.counts("backlog") == (0, 1)
    account.clock.advance(300.0)
    assert account.read(said["OutputLocation"]) == b"{}"
    metrics = account.server.simulation.metrics
    names = {name for _, name, dimensions in metrics.known() if dimensions == (("EndpointName", "backlog"),)}
    assert {"ApproximateBacklogSize", "ApproximateAgeOfOldestRequest"} <= names
    seen = account.cloudwatch.list_metrics(Namespace="AWS/SageMaker")["Metrics"]
    assert "ApproximateBacklogSizePerInstance" in {each["MetricName"] for each in seen}


def test_another_configuration_is_served_by_new_instances_before_the_old_ones_go(account: Account) -> None:
    account.served("blue")
    account.configure("green", count=2, kind="ml.g6.xlarge")
    change = {"EndpointName": "blue", "EndpointConfigName": "green"}
    account.sagemaker.update_endpoint(**change)
    assert account.status("blue") == "Updating"
    assert account.counts("blue") == (1, 2)
    assert refused(account.sagemaker.update_endpoint, **change)[0] == "ValidationException"
    said = account.ask("blue", b"meanwhile")
    account.clock.advance(400.0)
    found = account.described("blue")
    assert (found["EndpointStatus"], found["EndpointConfigName"]) == ("InService", "green")
    assert account.counts("blue") == (2, 2)
    assert account.read(said["OutputLocation"]) == b"meanwhile"
    account.faults.set({"capacity": 1})
    account.configure("red", count=2)
    account.sagemaker.update_endpoint(EndpointName="blue", EndpointConfigName="red")
    account.clock.advance(600.0)
    found = account.described("blue")
    assert (found["EndpointStatus"], found["EndpointConfigName"]) == ("InService", "green")
    assert account.counts("blue") == (2, 2)


def test_a_call_in_real_time_waits_for_its_answer_and_an_error_is_the_models(account: Account) -> None:
    account.endpoint("now", realtime=True)
    account.clock.advance(600.0)
    found: list[Any] = []

    def call(body: bytes) -> None:
        try:
            found.append(account.runtime.invoke_endpoint(EndpointName="now", Body=body)["Body"].read())
        except ClientError as error:
            found.append(error.response["Error"]["Code"])

    for body in (b"hello", b"fail"):
        caller = threading.Thread(target=call, args=(body,))
        caller.start()
        while caller.is_alive():
            account.clock.advance(1.0)
            caller.join(0.01)
    assert found == [b"hello", "ModelError"]
    code, told = refused(
        account.runtime.invoke_endpoint_async, EndpointName="now", InputLocation=f"s3://{BUCKET}/input"
    )
    assert (code, "not asynchronous" in told) == ("ValidationException", True)


def test_no_capacity_and_no_quota_are_two_different_refusals(account: Account) -> None:
    account.faults.set({"capacity": 0})
    account.endpoint("nowhere")
    account.clock.advance(300.0)
    found = account.described("nowhere")
    assert found["EndpointStatus"] == "Failed"
    assert "InsufficientInstanceCapacity" in found["FailureReason"]
    account.faults.set({"capacity": None, "quota": 1})
    account.configure("many", count=2)
    code, told = refused(account.sagemaker.create_endpoint, EndpointName="many", EndpointConfigName="many")
    assert (code, "Service Quotas" in told) == ("ResourceLimitExceeded", True)


def test_a_worker_that_never_answers_its_health_check_fails_the_endpoint(account: Account) -> None:
    account.faults.set({"failing_pings": 1})
    account.endpoint("ill")
    account.clock.advance(400.0)
    assert account.status("ill") == "Creating"
    account.clock.advance(300.0)
    found = account.described("ill")
    assert (found["EndpointStatus"], "ping health check" in found["FailureReason"]) == ("Failed", True)


def test_throttling_strikes_calls_to_sagemaker_by_its_rate(account: Account) -> None:
    account.served("busy")
    account.faults.set({"throttled": 0.5})
    codes = []
    for _ in range(40):
        try:
            account.described("busy")
        except ClientError as error:
            codes.append(error.response["Error"]["Code"])
    account.faults.set({"throttled": 0.0})
    assert set(codes) == {"ThrottlingException"}
    assert 8 <= len(codes) <= 32
    assert account.s3.list_buckets()["Buckets"]


def test_a_worker_that_crashes_loses_its_work_and_is_started_again(account: Account) -> None:
    account.served("crash")
    account.faults.set({"crashes": 1})
    first = account.ask("crash", InferenceId="lost")
    (told,) = account.notices()
    assert (told["inferenceId"], "went away" in told["failureReason"]) == ("lost", True)
    assert account.read(first["OutputLocation"]) is None
    assert account.counts("crash") == (0, 1)
    second = account.ask("crash", InferenceId="kept")
    account.clock.advance(70.0)
    assert account.counts("crash") == (1, 1)
    assert account.read(second["OutputLocation"]) == b"{}"


def test_messages_are_lost_doubled_and_late_by_a_seeded_rate_and_answers_never(account: Account) -> None:
    account.served("notices", concurrency=100)
    account.faults.set({"lost": 0.2, "doubled": 0.2, "late": 0.3, "late_seconds": 300.0})
    asked = [account.ask("notices", InferenceId=f"n{number}") for number in range(40)]
    account.clock.advance(10.0)
    early = [each["inferenceId"] for each in account.notices()]
    account.clock.advance(300.0)
    late = [each["inferenceId"] for each in account.notices()]
    told = early + late
    assert late
    assert 40 > len(set(told)) > 20, "some never come"
    assert len(told) > len(set(told)), "some come twice"
    assert all(account.read(each["OutputLocation"]) == b"{}" for each in asked)


def test_the_clock_the_faults_and_the_state_have_an_api_of_their_own(account: Account) -> None:
    account.served("seen")
    url = f"{account.server.url}/_rehearsal"
    before = account.clock.now()
    said = httpx.post(f"{url}/advance", json={"seconds": 30}, trust_env=False).json()
    assert said["now"] == before + 30.0
    assert said["endpoints"]["seen"]["serving"] == 1
    said = httpx.post(f"{url}/faults", json={"lost": 0.25}, trust_env=False).json()
    assert said["faults"]["lost"] == 0.25
    wrong = httpx.post(f"{url}/faults", json={"gremlins": 1}, trust_env=False)
    assert (wrong.status_code, "'gremlins' is no fault" in wrong.text) == (400, True)
    assert httpx.post(f"{url}/crash", json={"endpoint": "seen"}, trust_env=False).json()["crashed"]
    assert httpx.get(f"{url}/state", trust_env=False).json()["endpoints"]["seen"]["serving"] == 0
    assert httpx.get(f"{url}/nothing", trust_env=False).status_code == 404
    assert json.loads(account.s3.get_object(Bucket=BUCKET, Key="input")["Body"].read() or b"{}") == {}
