"""What every adapter of the Inbox port keeps, in one process and on SQS fed by SNS; and what of the messages
that come there is believed.
"""

from __future__ import annotations

import json
import logging
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest

from atelier.contract import keys
from atelier.storage.s3 import Bucket, S3BlobStore
from portal.adapters.aws import notices
from portal.adapters.aws.inbox import SqsInbox
from portal.adapters.local.inbox import QueueInbox
from portal.adapters.memory.clock import ManualClock
from portal.services.ports import Completion, Inbox, Message
from tests.moto_aws import Aws
from tests.waiting import eventually

LOCATION = "s3://studio/mine/"


@dataclass
class Queue:
    """A queue that both topics feed, as the deployment's templates make it; `raw`: without SNS's envelope."""

    aws: Aws
    raw: bool

    def __post_init__(self) -> None:
        self.sqs, self.sns = self.aws.client("sqs"), self.aws.client("sns")
        name = uuid.uuid4().hex
        self.url = self.sqs.create_queue(QueueName=name)["QueueUrl"]
        about = self.sqs.get_queue_attributes(QueueUrl=self.url, AttributeNames=["QueueArn"])
        self.topics = [self.sns.create_topic(Name=f"{name}-{each}")["TopicArn"] for each in "se"]
        for topic in self.topics:
            self.sns.subscribe(
                TopicArn=topic,
                Protocol="sqs",
                Endpoint=about["Attributes"]["QueueArn"],
                Attributes={"RawMessageDelivery": str(self.raw).lower()},
            )

    def inbox(self, **options: Any) -> SqsInbox:
        bucket = Bucket("studio", "mine/", endpoint_url=self.aws.url)
        store = S3BlobStore(bucket, self.aws.session)
        return SqsInbox(self.sqs, self.url, store, ManualClock(), poll_seconds=1, **options)

    def tell(self, completion: Completion) -> None:
        """What SageMaker tells of an attempt."""
        key = keys.invocation(completion.job, completion.part, completion.attempt)
        reason = completion.error["message"] if completion.error else ""
        self.publish(notice(LOCATION + key, reason), failed=bool(reason))

    def publish(self, message: dict[str, Any], *, failed: bool = False) -> None:
        self.sns.publish(TopicArn=self.topics[failed], Message=json.dumps(message))

    def left(self) -> int:
        names = ["ApproximateNumberOfMessages", "ApproximateNumberOfMessagesNotVisible"]
        told = self.sqs.get_queue_attributes(QueueUrl=self.url, AttributeNames=names)["Attributes"]
        return sum(int(each) for each in told.values())


def notice(location: str, reason: str = "") -> dict[str, Any]:
    return {
        "awsRegion": "eu-west-1",
        "eventTime": "2026-11-28T16:00:00.000Z",
        "receivedTime": "2026-11-28T15:59:00.000Z",
        "invocationStatus": "Failed" if reason else "Completed",
        "requestParameters": {"endpointName": "atelier-main", "inputLocation": location},
        "responseParameters": {"contentType": "application/json", "outputLocation": "s3://studio/o.out"},
        "inferenceId": "not-believed-1",
        "eventVersion": "1.0",
        "eventSource": "aws:sagemaker",
        "eventName": "InferenceResult",
        **({"failureReason": reason} if reason else {}),
    }


@dataclass
class Ground:
    """An inbox, and who leaves messages in it."""

    inbox: Inbox
    tell: Callable[[Completion], None]


@pytest.fixture(params=["local", "sqs", "sqs-enveloped"])
def ground(request: pytest.FixtureRequest) -> Ground:
    if request.param == "local":
        inbox = QueueInbox()
        return Ground(inbox, inbox.put)
    queue = Queue(request.getfixturevalue("aws"), raw=request.param == "sqs")
    return Ground(queue.inbox(), queue.tell)


@pytest.fixture
def queue(aws: Aws) -> Queue:
    return Queue(aws, raw=True)


def received(inbox: Inbox, count: int) -> list[Message]:
    """So many messages, however many at a time they come."""
    found: list[Message] = []

    def enough() -> bool:
        found.extend(inbox.receive(0.2))
        return len(found) >= count

    eventually(enough, within=60)
    return found


class TestInbox:
    def test_every_message_comes_whatever_its_order(self, ground: Ground) -> None:
        told = [Completion("job", f"part{number}", number) for number in range(1, 4)]
        for each in reversed(told):
            ground.tell(each)
        messages = received(ground.inbox, 3)
        assert sorted((each.completion for each in messages), key=lambda each: each.part) == told
        assert len({each.receipt for each in messages}) == 3

    def test_doubled_messages_both_come_and_are_acknowledged_each(self, ground: Ground) -> None:
        for _ in range(2):
            ground.tell(Completion("job", "part", 2))
        for message in received(ground.inbox, 2):
            assert message.completion == Completion("job", "part", 2)
            ground.inbox.ack(message.receipt)
            ground.inbox.ack(message.receipt)
        assert ground.inbox.receive(0.0) == []

    def test_a_failure_comes_with_its_reason(self, ground: Ground) -> None:
        body = {"code": "worker_unavailable", "message": "The model did not load", "retryable": True}
        ground.tell(Completion("job", "part", 1, body))
        (message,) = received(ground.inbox, 1)
        assert message.completion.error is not None
        assert message.completion.error["code"] == "worker_unavailable"
        assert "The model did not load" in message.completion.error["message"]

    def test_where_nothing_comes_nothing_is_received(self, ground: Ground) -> None:
        assert ground.inbox.receive(0.0) == []
        assert ground.inbox.receive(0.01) == []


def test_a_message_nobody_acknowledged_comes_again_in_another_process(
    queue: Queue, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("portal.adapters.aws.inbox.VISIBILITY_SECONDS", 1)
    queue.tell(Completion("job", "part", 1))
    assert len(received(queue.inbox(), 1)) == 1
    other = queue.inbox()
    (again,) = received(other, 1)
    assert again.completion == Completion("job", "part", 1)
    other.ack(again.receipt)
    assert queue.left() == 0


@pytest.mark.parametrize(
    "body",
    [
        "no json at all",
        "[" * 100_000,
        "[1]",
        json.dumps({"Type": "Notification", "Message": "neither"}),
        json.dumps({"invocationStatus": "Completed"}),
        json.dumps({**notice(""), "requestParameters": {"inputLocation": 7}}),
        json.dumps({**notice(""), "invocationStatus": "Perhaps"}),
        json.dumps(notice("s3://studio/other/jobs/j/p/1/invocation.json")),
        json.dumps(notice("s3://studio/mine/jobs/j/p/one/invocation.json")),
        json.dumps(notice("s3://studio/mine/jobs/j/../1/invocation.json")),
        json.dumps(notice("s3://studio/mine/jobs/j/p/1/result.json")),
        json.dumps(notice("s3://studio/mine/jobs/j/p/01/invocation.json")),
        json.dumps(notice("s3://elsewhere/mine/jobs/j/p/1/invocation.json")),
        json.dumps(notice("https://example.com/mine/jobs/j/p/1/invocation.json")),
    ],
)
def test_what_is_no_end_of_our_work_is_removed_and_holds_nothing_up(
    queue: Queue, body: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    queue.sqs.send_message(QueueUrl=queue.url, MessageBody=body)
    queue.tell(Completion("job", "part", 1))
    inbox = queue.inbox()
    (message,) = received(inbox, 1)
    inbox.ack(message.receipt)
    assert message.completion == Completion("job", "part", 1)
    assert queue.left() == 0
    assert "a message was removed from the queue" in caplog.text


@pytest.mark.parametrize(
    ("reason", "code", "retryable"),
    [
        ("ClientError: Received server error (503) from model. See the log.", "work_returned", True),
        ("ClientError: Received client error (429) from model. See the log.", "work_returned", True),
        ("ClientError: Received client error (403) from model. See the log.", "internal_error", False),
        ("ClientError: Received client error (422) from model. See the log.", "internal_error", False),
        ("ClientError: Received client error (499) from model. See the log.", "worker_unavailable", True),
        ("ClientError: Received server error (500) from model. See the log.", "worker_unavailable", True),
        ("ModelError: The container went away after 422 s.", "worker_unavailable", True),
    ],
)
def test_what_a_worker_gave_back_or_refused_is_told_apart_from_one_that_was_lost(
    reason: str, code: str, retryable: bool
) -> None:
    told = notice(LOCATION + keys.invocation("job", "part", 1), reason)
    completion = notices.read(json.dumps(told), LOCATION).completion
    assert completion is not None and completion.error is not None
    assert (completion.error["code"], completion.error["retryable"]) == (code, retryable)
    assert reason in completion.error["message"]


def test_the_end_of_this_processs_own_call_comes_at_once_beside_the_queues(queue: Queue) -> None:
    inbox = queue.inbox()
    inbox.put(Completion("job", "own", 1))
    (message,) = inbox.receive(30.0)
    assert message.completion.part == "own"
    inbox.ack(message.receipt)
    queue.tell(Completion("job", "queued", 1))
    assert received(inbox, 1)[0].completion.part == "queued"


def test_a_queue_that_does_not_answer_is_a_warning_and_is_asked_again_later(
    queue: Queue, caplog: pytest.LogCaptureFixture
) -> None:
    bucket = Bucket("studio", "mine/", endpoint_url=queue.aws.url)
    clock = ManualClock()
    gone = SqsInbox(
        queue.sqs, f"{queue.url}-gone", S3BlobStore(bucket, queue.aws.session), clock, poll_seconds=1
    )
    assert gone.receive(0.0) == []
    assert "asking the queue of ended work" in caplog.text
    asked = len(caplog.records)
    assert gone.receive(0.05) == []
    assert len(caplog.records) == asked
    clock.advance(60)
    eventually(lambda: gone.receive(0.05) == [] and len(caplog.records) > asked, within=60)
