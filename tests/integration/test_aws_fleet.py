"""SageMaker's fleet: what it asks AWS for, step by step, and what it makes of AWS's answers. Every request is
checked by botocore's own models on its way (tests/aws_world.py); the last test speaks HTTP with moto.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from atelier.contract import keys
from atelier.contract.errors import InvalidRequest, OutOfMemory, PayloadTooLarge, WorkReturned
from atelier.contract.parts import GpuState, InstanceState
from atelier.storage import aws_secret
from portal.adapters.aws.connection import clients
from portal.adapters.aws.fleet import SageMakerFleet
from portal.adapters.aws.instances import offers
from portal.adapters.aws.requests import environment
from portal.adapters.aws.service_quotas import preflight
from portal.adapters.local.inbox import QueueInbox
from portal.adapters.memory.clock import ManualClock
from portal.aws_options import AwsOptions
from portal.services.ports import (
    Completion,
    EndpointSpec,
    EndpointState,
    EndpointStatus,
    Submission,
    TicketState,
)
from rehearsal import quotas
from tests.aws_world import Endpoint, Refusal, World
from tests.moto_aws import REGION, running
from tests.waiting import eventually
from workers.runtime.settings import WorkerSettings

TOPIC = "arn:aws:sns:eu-central-1:123456789012:%s"
OPTIONS: dict[str, Any] = {
    "aws_inference_image": "123456789012.dkr.ecr.eu-central-1.amazonaws.com/inference@sha256:1",
    "aws_inference_role": "arn:aws:iam::123456789012:role/inference",
    "aws_custom_role": "arn:aws:iam::123456789012:role/custom",
    "aws_success_topic": TOPIC % "done",
    "aws_error_topic": TOPIC % "failed",
    "aws_subnets": ("subnet-1",),
    "aws_security_groups": ("sg-1",),
}
ARN = "arn:aws:secretsmanager:eu-west-1:123456789012:secret:atelier/keys/job-key-abcdef"
SPEC = EndpointSpec("big", 0, 4, slots=4, idle_seconds=600, instance_type="ml.g5.2xlarge")
KEY = "k" * 64


class Cloud:
    """A fleet in a world of its own."""

    def __init__(self, folder: Path) -> None:
        self.world = World(folder)
        self.inbox = QueueInbox()
        self.fleet = self.another()

    def another(self) -> SageMakerFleet:
        """The fleet of another process."""
        return SageMakerFleet(
            self.world.client,
            AwsOptions(**OPTIONS),
            self.world.bucket,
            store_url="s3://bucket/studio",
            job_key_arn=ARN,
            clock=self.world.clock,
            tell=self.inbox.put,
        )

    def look(self, *, after: float = 60.0) -> EndpointStatus:
        """How the endpoint is, a while later; nothing is asked of it."""
        self.world.clock.advance(after)
        status = self.fleet.describe("big")
        self.fleet.demand("big", 0)
        return status

    def until(self, true: Callable[[EndpointStatus], bool]) -> EndpointStatus:
        """The first status of which that is true."""
        for _ in range(200):
            status = self.look()
            if true(status):
                return status
        raise AssertionError(f"it stays {status}")

    def serve(self, spec: EndpointSpec = SPEC) -> None:
        """Make the endpoint and wait until it scales."""
        self.fleet.create(spec)
        self.until(lambda it: it.state is not EndpointState.CREATING)
        self.look()


@pytest.fixture
def cloud(tmp_path: Path) -> Cloud:
    return Cloud(tmp_path)


def changed(**other: Any) -> EndpointSpec:
    return EndpointSpec(**{**vars(SPEC), **other})


def test_an_endpoint_is_asked_for_whole_and_may_sleep_once_it_is_in_service(cloud: Cloud) -> None:
    cloud.fleet.create(SPEC)
    assert cloud.look().state is EndpointState.CREATING
    assert cloud.world.targets == {}, "AWS takes no least of zero before"
    cloud.serve()
    [model], [config], [endpoint] = (
        cloud.world.asked(f"Create{it}") for it in ("Model", "EndpointConfig", "Endpoint")
    )
    values = model["PrimaryContainer"]["Environment"]
    assert values["ATELIER_STORE"] == "s3://bucket/studio"
    assert (values["ATELIER_ENDPOINT"], values["ATELIER_DTYPE"]) == ("big", "float16")
    assert values["ATELIER_JOB_KEY_ARN"] == ARN and "ATELIER_JOB_KEY" not in values
    assert model["VpcConfig"] == {"Subnets": ["subnet-1"], "SecurityGroupIds": ["sg-1"]}
    [variant] = config["ProductionVariants"]
    assert (variant["InitialInstanceCount"], variant["InstanceType"]) == (1, "ml.g5.2xlarge")
    assert "VolumeSizeInGB" not in variant, "it has a disk of its own"
    asynchronous = config["AsyncInferenceConfig"]
    assert asynchronous["ClientConfig"] == {"MaxConcurrentInvocationsPerInstance": 4}
    assert asynchronous["OutputConfig"]["S3OutputPath"] == "s3://bucket/studio/async/big/answers"
    assert asynchronous["OutputConfig"]["NotificationConfig"]["ErrorTopic"] == TOPIC % "failed"
    assert endpoint["EndpointName"] == "atelier-big"
    for request in (model, config, endpoint, *cloud.world.asked("PutMetricAlarm")):
        assert {"Key": "Project", "Value": "atelier"} in request["Tags"]
    [target] = cloud.world.targets.values()
    assert (target["MinCapacity"], target["MaxCapacity"]) == (0, 4)
    assert sorted(cloud.world.alarms) == [f"atelier-big-{it}" for it in ("in", "knock", "out", "wake")]


def test_deleting_leaves_nothing_behind_and_waits_for_its_turn(cloud: Cloud) -> None:
    cloud.fleet.create(SPEC)
    cloud.fleet.delete("big")
    status = cloud.look(after=0.0)
    assert (status.state, "through with" in status.note) == (EndpointState.DELETING, True)
    cloud.until(lambda it: it.state is EndpointState.DELETED)
    assert cloud.world.leftovers() == []
    cloud.serve(changed(schedule="mon-fri 08:00-18:00 Europe/Berlin 1-4"))
    assert len(cloud.world.leftovers()) == 3 + 1 + 4 + 4 + 2
    other = cloud.another()
    other.delete("big")
    for _ in range(5):
        cloud.world.clock.advance(60.0)
        status = other.describe("big")
    assert status.state is EndpointState.DELETED
    assert cloud.world.leftovers() == []


def test_what_another_process_left_half_deleted_is_swept(cloud: Cloud) -> None:
    cloud.serve()
    cloud.world.endpoints.clear()
    other = cloud.another()
    assert other.describe("big").state is EndpointState.DELETED
    assert cloud.world.leftovers() == []


def test_a_change_waits_until_aws_is_through_with_the_last_one(cloud: Cloud) -> None:
    cloud.fleet.create(SPEC)
    cloud.fleet.update(changed(slots=8))
    assert "waits" in cloud.look(after=0.0).note
    notes = []
    cloud.serve(changed(slots=8))
    cloud.until(lambda it: notes.append(it.note) or not it.note)
    assert not [note for note in notes if "waits" in note], "by now AWS is at it"
    cloud.look()
    [update] = cloud.world.asked("UpdateEndpoint")
    assert update["RetainAllVariantProperties"] is True
    [config] = cloud.world.configs.values()
    assert config["AsyncInferenceConfig"]["ClientConfig"] == {"MaxConcurrentInvocationsPerInstance": 8}
    assert cloud.world.endpoints["atelier-big"].config in cloud.world.configs
    before = len(cloud.world.calls)
    cloud.fleet.update(changed(slots=8, max_instances=6))
    assert next(iter(cloud.world.targets.values()))["MaxCapacity"] == 6
    assert "UpdateEndpoint" not in [name for name, _ in cloud.world.calls[before:]], (
        "it only scales otherwise"
    )


def test_another_instance_type_is_given_while_nothing_scales_and_from_zero_with_one(cloud: Cloud) -> None:
    cloud.serve()
    cloud.world.endpoints["atelier-big"].desired = 0
    assert cloud.look().state is EndpointState.ASLEEP
    cloud.fleet.update(changed(instance_type="ml.g6.xlarge"))
    assert cloud.world.endpoints["atelier-big"].status == "Updating"
    assert cloud.world.targets == {}
    assert cloud.world.asked("UpdateEndpoint")[0]["RetainAllVariantProperties"] is False
    for _ in range(3):
        status = cloud.look()
    assert (status.state, status.instances) == (EndpointState.IN_SERVICE, 1)
    assert len(cloud.world.targets) == 1


def test_a_change_that_aws_took_back_is_not_asked_for_again_at_once(cloud: Cloud) -> None:
    cloud.serve()
    cloud.world.takes_back = "The primary container did not pass the ping health check."
    before = cloud.world.endpoints["atelier-big"].config
    for most, asked in (({"instance_type": "ml.g6.xlarge"}, 1), ({"instance_type": "ml.g5.xlarge"}, 2)):
        cloud.fleet.update(changed(**most))
        for _ in range(20):
            status = cloud.look()
        assert len(cloud.world.asked("UpdateEndpoint")) == asked
        assert (status.state, cloud.world.endpoints["atelier-big"].config) == (
            EndpointState.IN_SERVICE,
            before,
        )
        assert "took the last change back" in status.reason and "/ping" in status.reason
        assert len(cloud.world.targets) == 1, "what goes on scales"
    cloud.world.takes_back = ""
    status = cloud.until(lambda it: not it.reason)
    assert len(cloud.world.asked("UpdateEndpoint")) == 3, "after a long while it is tried again"
    assert cloud.world.endpoints["atelier-big"].config != before
    assert len(cloud.world.configs) == len(cloud.world.models) == 1


def test_a_quota_is_to_be_asked_for_and_capacity_is_waited_for(cloud: Cloud) -> None:
    told = "The account-level service limit 'ml.g5.2xlarge for endpoint usage' is 0 Instances"
    cloud.world.fail["CreateEndpoint"] = [Refusal("ResourceLimitExceeded", told)]
    cloud.fleet.create(SPEC)
    status = cloud.look(after=6.0)
    assert status.state is EndpointState.FAILED
    assert "quota" in status.reason and "Service Quotas" in status.reason and told in status.reason
    cloud.world.unable = "Unable to provision: InsufficientInstanceCapacity."
    cloud.until(lambda it: not it.reason.startswith("The account"))
    cloud.until(lambda it: it.state is EndpointState.FAILED)
    assert "no ml.g5.2xlarge free" in cloud.look().reason
    cloud.world.unable = ""
    states = []
    cloud.until(lambda it: states.append(it.state) or it.state is EndpointState.IN_SERVICE)
    assert EndpointState.DELETING not in states, "its row would go with it"
    assert cloud.world.asked("CreateEndpoint")[-1]["EndpointName"] == "atelier-big"


def test_what_would_break_again_is_made_again_once_its_numbers_are_others(cloud: Cloud) -> None:
    cloud.world.unable = "The primary container did not pass the ping health check."
    cloud.fleet.create(SPEC)
    cloud.until(lambda it: it.state is EndpointState.FAILED)
    for _ in range(100):
        status = cloud.look()
    assert "/aws/sagemaker/Endpoints/atelier-big" in status.reason and "/ping" in status.reason
    assert cloud.world.asked("DeleteEndpoint") == []
    cloud.world.unable = ""
    cloud.fleet.update(changed(slots=2))
    cloud.until(lambda it: it.state is EndpointState.IN_SERVICE)


def test_the_quotas_are_looked_at_before_anything_is_made(cloud: Cloud) -> None:
    cloud.world.quotas["ml.g5.2xlarge"] = 0.0
    cloud.fleet.create(SPEC)
    status = cloud.look(after=6.0)
    assert status.state is EndpointState.FAILED
    assert "may have 0 ml.g5.2xlarge" in status.reason and "--quota-code L-00000020" in status.reason
    assert cloud.world.asked("CreateModel") == []
    cloud.world.quotas["ml.g5.2xlarge"] = 2.0
    cloud.serve()
    assert "big may want 4" in cloud.look().note, "it serves with what it may have"
    others = [changed(name="b", max_instances=1), changed(name="c", instance_type="ml.p3.2xlarge")]
    told = preflight(cloud.world.client("service-quotas"), [changed(max_instances=1), *others])
    assert len(told) == 1 and "no ml.p3.2xlarge" in told[0], "two of two are allowed"
    cloud.world.fail["ListServiceQuotas"] = [Refusal("AccessDeniedException", "not authorized")]
    [denied] = preflight(cloud.world.client("service-quotas"), others)
    assert "role does not allow" in denied


def test_the_rehearsals_account_has_plenty_of_all_that_is_offered(cloud: Cloud) -> None:
    cloud.world.list_service_quotas = lambda **_: quotas.of_endpoints()  # type: ignore[method-assign]
    specs = [changed(name=f"e{number}", instance_type=each.name) for number, each in enumerate(offers())]
    assert preflight(cloud.world.client("service-quotas"), specs) == []


@pytest.mark.parametrize(
    ("said", "current", "desired", "state", "instances", "leaving"),
    [
        ("Creating", 0, 1, EndpointState.CREATING, 0, 0),
        ("InService", 2, 2, EndpointState.IN_SERVICE, 2, 0),
        ("InService", 0, 0, EndpointState.ASLEEP, 0, 0),
        ("InService", 1, 0, EndpointState.ASLEEP, 0, 1),
        ("Updating", 0, 2, EndpointState.STARTING, 0, 0),
        ("Updating", 3, 1, EndpointState.IN_SERVICE, 1, 2),
        ("SystemUpdating", 1, 1, EndpointState.IN_SERVICE, 1, 0),
        ("RollingBack", 1, 1, EndpointState.IN_SERVICE, 1, 0),
        ("OutOfService", 0, 1, EndpointState.FAILED, 0, 0),
        ("Failed", 0, 1, EndpointState.FAILED, 0, 0),
        ("UpdateRollbackFailed", 1, 1, EndpointState.FAILED, 0, 0),
        ("Deleting", 1, 1, EndpointState.DELETING, 0, 0),
    ],
)
def test_every_status_of_sagemaker_has_a_state(
    cloud: Cloud, said: str, current: int, desired: int, state: EndpointState, instances: int, leaving: int
) -> None:
    cloud.world.endpoints["atelier-big"] = Endpoint("c", said, current, desired, turns=9, reason="It says so")
    status = cloud.fleet.describe("big")
    assert (status.state, status.instances, status.leaving) == (state, instances, leaving)
    assert "It says so" in status.reason or state is EndpointState.DELETING


def test_a_part_goes_through_the_bucket_and_its_ticket_outlives_the_process(cloud: Cloud) -> None:
    cloud.serve()
    cloud.world.work = lambda body: (0, b"")
    ticket = cloud.fleet.submit(Submission("big", "j" * 32, "p" * 32, 3, {"task": "é"}))
    [request] = cloud.world.asked("InvokeEndpointAsync")
    assert request["InputLocation"].endswith(f"/jobs/{'j' * 32}/{'p' * 32}/3/invocation.json")
    assert json.loads(cloud.world.bucket.get(cloud.world.bucket.key_of(request["InputLocation"]))) == {
        "task": "é"
    }
    assert (request["InferenceId"], request["InvocationTimeoutSeconds"]) == (f"{'p' * 32}-3", 3600)
    other = cloud.another()
    assert other.poll(ticket) is TicketState.PENDING
    [place] = [each for each in ticket.split(" ") if each.endswith("-error.out")]
    cloud.world.bucket.put(f"async/big/failures/{place}", b"no")
    assert other.poll(ticket) is TicketState.DONE
    cloud.world.bucket.delete(f"async/big/failures/{place}")
    cloud.world.clock.advance(7 * 3600 + 1)
    assert other.poll(ticket) is TicketState.UNKNOWN, "AWS has given it up by now"


def test_work_comes_back_while_aws_takes_none(cloud: Cloud) -> None:
    cloud.fleet.create(SPEC)
    with pytest.raises(WorkReturned, match="still being created"):
        cloud.fleet.submit(Submission("big", "j", "p", 1, {}))
    cloud.serve()
    for code, told in (("ThrottlingException", "Rate exceeded"), ("ValidationError", "Endpoint not found")):
        cloud.world.fail["InvokeEndpointAsync"] = [Refusal(code, told)]
        with pytest.raises(WorkReturned, match=told):
            cloud.fleet.submit(Submission("big", "j", "p", 1, {}))


def test_a_realtime_endpoint_is_called_by_a_thread_that_tells_the_inbox(cloud: Cloud) -> None:
    cloud.serve(changed(kind="realtime", min_instances=1))
    assert "AsyncInferenceConfig" not in cloud.world.asked("CreateEndpointConfig")[0]
    worker = OutOfMemory("It does not fit.")
    for error in (None, worker):
        answer = (200, b"{}") if error is None else (507, json.dumps({"error": worker.body()}).encode())
        cloud.world.work = lambda body, answer=answer: answer
        ticket = cloud.fleet.submit(Submission("big", "j", "p", 1, {}))
        [message] = eventually(lambda: cloud.inbox.receive(0.1), within=60)
        assert message.completion == Completion("j", "p", 1, error.body() if error else None)
        assert cloud.fleet.poll(ticket) is TicketState.DONE
    with pytest.raises(PayloadTooLarge, match="asynchronous"):
        cloud.fleet.submit(Submission("big", "j", "p", 1, {"x": "x" * 6 * 2**20}))


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ({"name": "x" * 45}, "at most 44"),
        ({"instance_type": ""}, "needs an instance_type"),
        ({"kind": "realtime"}, "cannot be at zero"),
        ({"metric": "invocations"}, "Choose demand or backlog"),
        ({"kind": "custom", "image": "x"}, "no demand to scale by"),
        (
            {"instance_type": "ml.g4dn.xlarge", "options": {"dtype": "bfloat16"}},
            "T4 GPUs do not compute in bfloat16",
        ),
    ],
)
def test_what_sagemaker_cannot_make_is_refused_in_words(
    cloud: Cloud, wrong: dict[str, Any], words: str
) -> None:
    with pytest.raises(InvalidRequest, match=words):
        cloud.fleet.create(changed(**wrong))
    assert cloud.world.calls == []


def test_nothing_long_stands_in_a_workers_variables(cloud: Cloud) -> None:
    container = cloud.fleet._container
    longest = max(len(value) for value in environment(SPEC, container).values())
    assert longest < 200
    with pytest.raises(InvalidRequest, match="1024"):
        environment(changed(options={"attention": "x" * 1025}), container)


def test_the_demand_is_published_with_each_change_and_every_few_seconds(cloud: Cloud) -> None:
    cloud.serve()
    cloud.world.metrics.clear()
    for parts in (3, 3, 3, 0, 0, 0):
        cloud.fleet.demand("big", parts)
        cloud.world.clock.advance(4.0)
    told = [(each["MetricName"], each["Value"]) for each in cloud.world.metrics]
    assert told == [("Demand", 3), ("Capacity", 1)] * 2 + [("Demand", 0), ("Capacity", 1)]
    assert cloud.world.metrics[0]["Dimensions"] == [{"Name": "Endpoint", "Value": "atelier-big"}]
    cloud.world.fail["PutMetricData"] = [Refusal("ThrottlingException", "Rate exceeded")]
    cloud.fleet.demand("big", 5)
    cloud.fleet.demand("big", 5)
    assert cloud.world.metrics[-2]["Value"] == 5, "a demand that could not be told is told again"


def test_a_new_leader_that_has_not_seen_an_endpoint_yet_tells_no_number_of_it(cloud: Cloud) -> None:
    cloud.serve()
    another = cloud.another()
    cloud.world.fail["DescribeEndpoint"] = [Refusal("ThrottlingException", "Rate exceeded")]
    another.create(SPEC)
    cloud.world.metrics.clear()
    another.demand("big", 3)
    assert cloud.world.metrics == []
    cloud.world.clock.advance(60.0)
    another.describe("big")
    another.demand("big", 3)
    assert [each["Value"] for each in cloud.world.metrics] == [3, 1]


def test_workers_figures_are_published_once_a_minute(cloud: Cloud) -> None:
    cloud.serve()
    cloud.world.metrics.clear()
    now = time.time()
    cloud.world.clock.advance(61.0)
    cloud.world.clock.jump(now - cloud.world.clock.now())
    for name, device in (("a", "cuda"), ("b", "cpu")):
        state = InstanceState(
            endpoint="big",
            instance=name,
            engine="e",
            status="ready",
            at=now,
            memory_used=7,
            memory_free=9,
            device=device,
        )
        cloud.world.bucket.put(keys.instance("big", name), state.model_dump_json().encode())
    cloud.world.bucket.put(keys.instance("big", "broken"), b"{")
    for _ in range(3):
        cloud.world.clock.advance(9.0)
        cloud.fleet.demand("big", 1)
    told = {each["MetricName"]: each["Value"] for each in cloud.world.metrics}
    assert (told["GpuMemoryUsed"], told["GpuMemoryFree"], told["MemoryUsed"]) == (7, 9, 7)
    assert "GpuUtilization" not in told
    assert len([each for each in cloud.world.metrics if each["MetricName"] == "PartsInWork"]) == 2
    assert {each["StorageResolution"] for each in cloud.world.metrics} == {1, 60}


def test_of_a_gpu_what_its_driver_says_is_published(cloud: Cloud) -> None:
    cloud.serve()
    now = time.time()
    cloud.world.clock.advance(61.0)
    cloud.world.clock.jump(now - cloud.world.clock.now())
    gpu = GpuState(memory_used=6, memory_total=24, busy=87)
    state = InstanceState(
        endpoint="big",
        instance="a",
        engine="e",
        status="ready",
        at=now,
        device="cuda",
        memory_used=7,
        gpu=gpu,
    )
    cloud.world.bucket.put(keys.instance("big", "a"), state.model_dump_json().encode())
    cloud.world.metrics.clear()
    cloud.fleet.demand("big", 2)
    told = {each["MetricName"]: (each["Value"], each["Unit"]) for each in cloud.world.metrics}
    assert told["GpuMemoryUsed"] == (6.0, "Bytes")
    assert told["GpuMemoryFree"] == (18.0, "Bytes")
    assert told["GpuUtilization"] == (87.0, "Percent")


def test_moto_makes_and_deletes_the_same_over_http_and_a_worker_reads_its_key(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = ManualClock()
    with running() as aws:
        secret = aws.client("secretsmanager").create_secret(Name="atelier/keys/job-key", SecretString=KEY)
        options = AwsOptions(**OPTIONS, aws_endpoint_url=aws.url, aws_region=REGION)
        fleet = SageMakerFleet(
            clients(options, aws.session),
            options,
            World(tmp_path).bucket,
            store_url="s3://bucket/studio",
            job_key_arn=secret["ARN"],
            clock=clock,
            tell=QueueInbox().put,
        )
        fleet.create(changed(instance_type="ml.g4dn.xlarge"))  # moto's list of types is an old one
        for _ in range(3):
            clock.advance(60.0)
            assert fleet.describe("big").state is EndpointState.IN_SERVICE
        fleet.demand("big", 2)
        alarms = aws.client("cloudwatch").describe_alarms()["MetricAlarms"]
        assert sorted(each["AlarmName"] for each in alarms) == [
            f"atelier-big-{it}" for it in ("in", "knock", "out", "wake")
        ]
        fleet.delete("big")
        assert fleet.describe("big").state is EndpointState.DELETED
        sagemaker = aws.client("sagemaker")
        left = [sagemaker.list_models()["Models"], sagemaker.list_endpoint_configs()["EndpointConfigs"]]
        left += [
            sagemaker.list_endpoints()["Endpoints"],
            aws.client("cloudwatch").describe_alarms()["MetricAlarms"],
        ]
        assert left == [[], [], [], []]
        for name, value in {
            "ATELIER_STORE": "file:///x",
            "ATELIER_ENDPOINT": "e",
            "ATELIER_JOB_KEY_ARN": secret["ARN"],
        }.items():
            monkeypatch.setenv(name, value)
        settings = WorkerSettings().with_secrets()  # type: ignore[call-arg]
        assert settings.signing_key == KEY.encode()
        assert settings.instance != WorkerSettings().instance  # type: ignore[call-arg]
        with pytest.raises(InvalidRequest, match="no ARN"):
            aws_secret.read("job-key")
