"""A rehearsal in the test's own process, asked with boto3 as a stranger would: its clock goes when a test
says so.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import boto3

from rehearsal.server import RehearsalServer
from rehearsal.variant import Answer, Variant, Worker
from rehearsal.workers import ScriptedWorker

START = 1_800_000_000.0
BUCKET = "rehearsed"
ROLE = "arn:aws:iam::123456789012:role/rehearsed"


class Echo:
    """Answers with the body after ten seconds; a body that says so fails."""

    seconds = 10.0

    def begin(self, body: bytes) -> float:
        """See Script."""
        return self.seconds

    def end(self, body: bytes) -> Answer:
        """See Script."""
        return Answer(500 if b"fail" in body else 200, body)

    def give_up(self, body: bytes) -> Answer:
        """See Script."""
        return Answer(503, b'{"error": "draining"}')


def client(url: str, service: str) -> Any:
    """A boto3 client that asks once."""
    from botocore.config import Config

    return boto3.client(
        service,
        endpoint_url=url,
        region_name="us-east-1",
        aws_access_key_id="x",
        aws_secret_access_key="x",
        config=Config(retries={"total_max_attempts": 1}),
    )


class Account:
    """The simulated account with a bucket, two topics and the queue that both feed, and one model."""

    def __init__(self, server: RehearsalServer, environment: dict[str, str] | None = None) -> None:
        self.server = server
        self.clock = server.clock
        self.faults = server.simulation.chance
        for service in ("s3", "sns", "sqs", "sagemaker", "cloudwatch"):
            setattr(self, service, client(server.url, service))
        self.runtime = client(server.url, "sagemaker-runtime")
        self.scaling = client(server.url, "application-autoscaling")
        self.s3.create_bucket(Bucket=BUCKET)
        self._input: bytes | None = None
        self.topics = [self.sns.create_topic(Name=name)["TopicArn"] for name in ("success", "error")]
        self.queue = self.sqs.create_queue(QueueName="notices")["QueueUrl"]
        arn = self.sqs.get_queue_attributes(QueueUrl=self.queue, AttributeNames=["QueueArn"])
        for topic in self.topics:
            self.sns.subscribe(TopicArn=topic, Protocol="sqs", Endpoint=arn["Attributes"]["QueueArn"])
        container = {"Image": "image", "Environment": environment or {"ATELIER_ENDPOINT": "e"}}
        self.sagemaker.create_model(ModelName="model", PrimaryContainer=container, ExecutionRoleArn=ROLE)

    s3: Any
    sns: Any
    sqs: Any
    sagemaker: Any
    cloudwatch: Any

    def endpoint(self, name: str, *, count: int = 1, concurrency: int = 2, realtime: bool = False) -> str:
        """An endpoint that is being created, with a configuration of its own."""
        self.configure(name, count=count, concurrency=concurrency, realtime=realtime)
        self.sagemaker.create_endpoint(EndpointName=name, EndpointConfigName=name)
        return name

    def configure(
        self,
        name: str,
        *,
        count: int = 1,
        concurrency: int = 2,
        realtime: bool = False,
        kind: str = "ml.g5.xlarge",
    ) -> None:
        """An endpoint configuration."""
        variant = {
            "VariantName": "all",
            "ModelName": "model",
            "InstanceType": kind,
            "InitialInstanceCount": count,
            "ContainerStartupHealthCheckTimeoutInSeconds": 300,
        }
        told = {"SuccessTopic": self.topics[0], "ErrorTopic": self.topics[1]}
        output = {
            "S3OutputPath": f"s3://{BUCKET}/{name}/out",
            "S3FailurePath": f"s3://{BUCKET}/{name}/failed",
            "NotificationConfig": told,
        }
        client_config = {"MaxConcurrentInvocationsPerInstance": concurrency}
        how = (
            {}
            if realtime
            else {"AsyncInferenceConfig": {"ClientConfig": client_config, "OutputConfig": output}}
        )
        self.sagemaker.create_endpoint_config(EndpointConfigName=name, ProductionVariants=[variant], **how)

    def served(self, name: str, **more: Any) -> str:
        """An endpoint in service."""
        self.endpoint(name, **more)
        self.clock.advance(600.0)
        assert self.status(name) == "InService"
        return name

    def described(self, name: str) -> dict[str, Any]:
        """DescribeEndpoint."""
        found: dict[str, Any] = self.sagemaker.describe_endpoint(EndpointName=name)
        return found

    def status(self, name: str) -> str:
        """Its status."""
        return str(self.described(name)["EndpointStatus"])

    def counts(self, name: str) -> tuple[int, int]:
        """(instances in service, wanted)."""
        variant = self.described(name)["ProductionVariants"][0]
        return variant["CurrentInstanceCount"], variant["DesiredInstanceCount"]

    def ask(self, name: str, body: bytes = b"{}", **more: Any) -> dict[str, Any]:
        """InvokeEndpointAsync with the body in the bucket."""
        where = f"s3://{BUCKET}/input"
        if body != self._input:
            self.s3.put_object(Bucket=BUCKET, Key="input", Body=body)
            self._input = body
        said: dict[str, Any] = self.runtime.invoke_endpoint_async(
            EndpointName=name, InputLocation=where, **more
        )
        return said

    def read(self, uri: str) -> bytes | None:
        """An object, None where there is none."""
        key = uri.removeprefix(f"s3://{BUCKET}/")
        listed = self.s3.list_objects_v2(Bucket=BUCKET, Prefix=key).get("Contents", [])
        return self.s3.get_object(Bucket=BUCKET, Key=key)["Body"].read() if listed else None

    def notices(self) -> list[dict[str, Any]]:
        """Every message that waits, taken from the queue."""
        found = []
        while messages := self.sqs.receive_message(QueueUrl=self.queue, MaxNumberOfMessages=10).get(
            "Messages"
        ):
            for each in messages:
                self.sqs.delete_message(QueueUrl=self.queue, ReceiptHandle=each["ReceiptHandle"])
                found.append(json.loads(json.loads(each["Body"])["Message"]))
        return found

    def scaled(self, name: str, low: int, high: int) -> dict[str, str]:
        """The endpoint's scalable target."""
        target = {
            "ServiceNamespace": "sagemaker",
            "ResourceId": f"endpoint/{name}/variant/all",
            "ScalableDimension": "sagemaker:variant:DesiredInstanceCount",
        }
        self.scaling.register_scalable_target(**target, MinCapacity=low, MaxCapacity=high)
        return target

    def demand(self, value: float, name: str = "Demand") -> None:
        """Put a number of the portal's."""
        dimensions = [{"Name": "Endpoint", "Value": "e"}]
        datum = {"MetricName": name, "Value": value, "Dimensions": dimensions}
        self.cloudwatch.put_metric_data(Namespace="Atelier", MetricData=[datum])


@contextmanager
def rehearsed(script: Any = None, seed: int = 7, speed: float | None = None) -> Iterator[Account]:
    """An account whose instances run `script`; with a `speed` its clock goes by itself."""

    def open_worker(_endpoint: str, _instance: str, _variant: Variant) -> Worker:
        return ScriptedWorker(script or Echo(), server.clock, 25.0)

    server = RehearsalServer(open_worker, start=START, seed=seed, speed=speed)
    server.start()
    try:
        yield Account(server)
    finally:
        server.stop()
