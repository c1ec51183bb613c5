"""A portal whose platform is AWS: what is wired to what, what is looked at, and a job's way through it. The
account is moto's; what SageMaker's worker does, the test does.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from atelier.contract import keys
from atelier.contract.errors import AtelierError, InvalidRequest, NotReady
from atelier.contract.jobs import JobRequest, JobState
from portal import cli
from portal.adapters.aws.checks import parts
from portal.adapters.local.inbox import QueueInbox
from portal.adapters.memory.fleet import InMemoryFleet
from portal.bootstrap import JOB_KEY, build
from portal.first_start import Prepared, prepare
from portal.services import audit
from portal.services.callers import Caller
from portal.services.checkup import Checkup, Tone
from portal.services.container import Services
from portal.services.health import Health
from portal.services.permissions import ROLES
from portal.services.ports import EndpointSpec, PlatformPart, Submission
from portal.settings import Settings, environment, load
from tests import moto_aws
from tests.contract.test_inbox import Queue, notice
from tests.moto_aws import Aws

PAYLOAD = {"prompt": "a red circle", "steps": 4, "width": 64, "height": 64, "seed": 7}


@pytest.fixture(scope="module")
def aws() -> Iterator[Aws]:
    with moto_aws.running() as account:
        account.client("ecs").create_cluster(clusterName="tasks")
        account.bucket()
        yield account


@pytest.fixture(scope="module")
def queue(aws: Aws) -> Queue:
    return Queue(aws, raw=True)


@pytest.fixture(scope="module")
def settings(aws: Aws, queue: Queue, tmp_path_factory: pytest.TempPathFactory, repository: Path) -> Settings:
    return load(
        platform="aws",
        data_dir=tmp_path_factory.mktemp("portal"),
        demo_checkpoint=repository / "models" / "atelier-demo.safetensors",
        store_url="s3://studio/mine",
        aws_region=moto_aws.REGION,
        aws_endpoint_url=aws.url,
        aws_inference_image="123456789012.dkr.ecr.eu-west-1.amazonaws.com/atelier/inference@sha256:1",
        aws_inference_role="arn:aws:iam::123456789012:role/atelier-inference",
        aws_success_topic=queue.topics[0],
        aws_error_topic=queue.topics[1],
        aws_queue_url=queue.url,
        aws_task_cluster="tasks",
        aws_task_definition="tasks:1",
    )


@pytest.fixture(scope="module")
def prepared(settings: Settings) -> Prepared:
    """A first start, of a portal that knows no more of the account than it needs for that."""
    return prepare(settings.model_copy(update={"aws_queue_url": None, "aws_task_cluster": None}))


@pytest.fixture(scope="module")
def services(settings: Settings, prepared: Prepared) -> Iterator[Services]:
    built = build(settings)
    yield built
    built.stop()


def submitted(services: Services) -> tuple[str, Caller]:
    """The id of a job of the first user's, and who that is."""
    root = next(each for each in services.identity.users() if each.username == "admin")
    caller = Caller(root.id, "admin", ("admin",), ROLES["admin"])
    return services.work.acceptance.accept(caller, JobRequest(txt2img_payload=PAYLOAD)), caller


def sent(services: Services, aws: Aws, job: str) -> Submission:
    """What the portal put into the bucket for the job's part."""
    (blob,) = [each for each in services.store.list(f"jobs/{job}/") if each.key.endswith("invocation.json")]
    _, _, part, attempt, _ = blob.key.split("/")
    return Submission("main", job, part, int(attempt), json.loads(services.store.get(blob.key)))


def test_a_job_goes_through_bucket_sagemaker_sns_and_sqs_and_becomes_a_picture(
    services: Services, aws: Aws, queue: Queue
) -> None:
    services.work.endpoints.create(audit.SYSTEM, EndpointSpec("main", instance_type="ml.g4dn.xlarge"))
    job, caller = submitted(services)
    services.work.loop.turn()
    submission = sent(services, aws, job)
    worker = InMemoryFleet(services.store, QueueInbox())
    worker.succeed(submission, tell=False)
    queue.publish(notice(services.store.location(keys.invocation(job, submission.part, submission.attempt))))
    queue.publish(notice("s3://another/studio/jobs/j/p/1/invocation.json"))
    for _ in range(2):
        services.work.loop.turn()
    view = services.work.jobs.get(caller, job)
    assert view.state is JobState.SUCCEEDED
    assert len(view.pictures) == 1
    assert queue.left() == 0
    model = aws.client("sagemaker").list_models()["Models"][0]["ModelName"]
    told: dict[str, Any] = aws.client("sagemaker").describe_model(ModelName=model)["PrimaryContainer"]
    worker_reads = told["Environment"]
    assert worker_reads["ATELIER_STORE"].startswith("s3://studio/mine?region=eu-west-1")
    secret = aws.client("secretsmanager").get_secret_value(SecretId=worker_reads["ATELIER_JOB_KEY_ARN"])
    assert secret["SecretString"] == services.secrets.get(JOB_KEY).hex()


def test_a_first_start_makes_user_checkpoint_and_keys_and_leaves_instances_to_people(
    settings: Settings, prepared: Prepared, aws: Aws
) -> None:
    assert prepared.password
    assert [each for each in prepared.notes if "atelier-demo" in each or "ndpoint" in each] == [
        prepared.notes[-1]
    ]
    names = {each["Name"] for each in aws.client("secretsmanager").list_secrets()["SecretList"]}
    assert {f"atelier/keys/{each}" for each in ("signing-key", "job-key", "audit-key")} <= names
    answering = build(settings.model_copy(update={"roles": ("api",), "aws_queue_url": None}))
    try:
        assert "ml.g5.xlarge" in {each.name for each in answering.work.endpoints.offers()}
        with pytest.raises(InvalidRequest, match="instance_type"):
            answering.work.endpoints.create(audit.SYSTEM, EndpointSpec("local"))
    finally:
        answering.stop()


def test_every_part_is_looked_at_and_told_to_strangers_and_operators_apart(
    services: Services, settings: Settings, aws: Aws, queue: Queue
) -> None:
    names = ("store", "queue", "secrets", "cluster")
    checks = services.health.checks()
    assert {name: checks[name] for name in names} == dict.fromkeys(names, "ok")
    wrong = settings.model_copy(
        update={"aws_queue_url": f"{queue.url}-gone", "aws_task_cluster": "elsewhere"}
    )
    broken = parts(aws.client, wrong, "nobody/keys/job-key")
    health = Health(services.database, services.store, services.clock, list, platform=broken)
    checks = health.checks()
    assert {name: checks[name] for name in names} == {
        "store": "ok",
        "queue": "The queue of ended work cannot be read.",
        "secrets": "The deployment's keys cannot be looked at.",
        "cluster": "The cluster of CPU tasks is not there.",
    }
    work = services.work
    checkup = Checkup(
        settings,
        health,
        services.database,
        services.store,
        services.trail,
        work.endpoints,
        work.details,
        broken,
    )
    findings = {each.name: each for each in checkup.report().findings}
    assert {findings[part.title].tone for part in broken} == {Tone.BAD}
    assert "no active cluster 'elsewhere'" in findings["Cluster of CPU tasks"].said


def test_parts_are_looked_at_again_only_after_a_while(services: Services) -> None:
    looked: list[float] = []
    now = [1000.0]

    def look() -> str:
        looked.append(now[0])
        return "It answers."

    part = PlatformPart("thing", "Thing", "The thing is gone.", look)
    health = Health(
        services.database, services.store, services.clock, list, monotonic=lambda: now[0], platform=(part,)
    )
    for passed in (0.0, 2.0, 14.0, 16.0):
        now[0] = 1000.0 + passed
        assert health.checks()["thing"] == "ok"
    assert looked == [1000.0, 1016.0]


def test_doctor_says_of_each_part_of_the_account_what_is_wrong_with_it(
    settings: Settings,
    prepared: Prepared,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    for name, value in environment(settings).items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("ATELIER_AWS_TASK_CLUSTER", "elsewhere")
    monkeypatch.delenv("ATELIER_AWS_QUEUE_URL")
    monkeypatch.setenv("ATELIER_STORE_URL", "s3://another-bucket/mine")
    cli.main(["doctor"])
    found = capsys.readouterr().out
    assert (
        "Queue of ended work: No queue is known that tells of ended work. Set ATELIER_AWS_QUEUE_URL" in found
    )
    assert "no active cluster 'elsewhere'" in found
    assert "there is no bucket another-bucket" in found


def test_a_dispatcher_without_a_queue_or_a_library_says_what_it_needs(
    settings: Settings, prepared: Prepared, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(NotReady, match="ATELIER_AWS_QUEUE_URL"):
        build(settings.model_copy(update={"aws_queue_url": None}))
    monkeypatch.setitem(sys.modules, "portal.adapters.aws.assembly", None)
    with pytest.raises(AtelierError, match=r"pip install 'atelier\[aws\]'"):
        build(settings)
