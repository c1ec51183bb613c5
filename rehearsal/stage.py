"""What a deployment's templates make before the studio starts, made in the simulated account: bucket, key,
topics, queue, roles, cluster. Their names are the studio's settings.
"""

from __future__ import annotations

import json
from typing import Any

import boto3

from rehearsal.account import ACCOUNT
from rehearsal.crew import CREDENTIALS

IMAGE = f"{ACCOUNT}.dkr.ecr.{{region}}.amazonaws.com/{{prefix}}/inference:rehearsal"


def set_up(url: str, region: str, prefix: str = "atelier") -> dict[str, str]:
    """Make it all, and return the studio's variables for it. The account must be empty."""

    def client(service: str) -> Any:
        return boto3.client(
            service,
            endpoint_url=url,
            region_name=region,
            aws_access_key_id=CREDENTIALS["AWS_ACCESS_KEY_ID"],
            aws_secret_access_key=CREDENTIALS["AWS_SECRET_ACCESS_KEY"],
        )

    key = client("kms").create_key(Description="The studio's data")["KeyMetadata"]["Arn"]
    bucket = _bucket(client("s3"), f"{prefix}-{ACCOUNT}-{region}", region, key)
    success, error, queue = _messages(client("sns"), client("sqs"), prefix)
    iam = client("iam")
    subnets, groups = _network(client("ec2"), prefix)
    cluster, definition = _tasks(client("ecs"), iam, prefix, region)
    client("logs").create_log_group(logGroupName=f"/{prefix}/tasks")
    return {
        "ATELIER_PLATFORM": "aws",
        "ATELIER_STORE_URL": f"s3://{bucket}",
        "ATELIER_AWS_REGION": region,
        "ATELIER_AWS_ENDPOINT_URL": url,
        "ATELIER_AWS_PREFIX": prefix,
        "ATELIER_AWS_INFERENCE_IMAGE": IMAGE.format(region=region, prefix=prefix),
        "ATELIER_AWS_INFERENCE_ROLE": _role(iam, f"{prefix}-inference", "sagemaker.amazonaws.com"),
        "ATELIER_AWS_SUCCESS_TOPIC": success,
        "ATELIER_AWS_ERROR_TOPIC": error,
        "ATELIER_AWS_QUEUE_URL": queue,
        "ATELIER_AWS_KMS_KEY": key,
        "ATELIER_AWS_TASK_CLUSTER": cluster,
        "ATELIER_AWS_TASK_DEFINITION": definition,
        "ATELIER_AWS_SUBNETS": json.dumps(subnets),
        "ATELIER_AWS_SECURITY_GROUPS": json.dumps(groups),
    }


def _bucket(s3: Any, name: str, region: str, key: str) -> str:
    """A bucket that encrypts with the key and lets nobody in from outside."""
    where = {} if region == "us-east-1" else {"CreateBucketConfiguration": {"LocationConstraint": region}}
    s3.create_bucket(Bucket=name, **where)
    rule = {"ApplyServerSideEncryptionByDefault": {"SSEAlgorithm": "aws:kms", "KMSMasterKeyID": key}}
    s3.put_bucket_encryption(Bucket=name, ServerSideEncryptionConfiguration={"Rules": [rule]})
    closed = dict.fromkeys(
        ("BlockPublicAcls", "IgnorePublicAcls", "BlockPublicPolicy", "RestrictPublicBuckets"), True
    )
    s3.put_public_access_block(Bucket=name, PublicAccessBlockConfiguration=closed)
    return name


def _messages(sns: Any, sqs: Any, prefix: str) -> tuple[str, str, str]:
    """(success topic, error topic, queue): both topics feed the queue, raw."""
    unread = _queue_arn(sqs, sqs.create_queue(QueueName=f"{prefix}-ends-unread")["QueueUrl"])
    attributes = {
        "VisibilityTimeout": "60",
        "ReceiveMessageWaitTimeSeconds": "20",
        "RedrivePolicy": json.dumps({"deadLetterTargetArn": unread, "maxReceiveCount": 10}),
    }
    queue: str = sqs.create_queue(QueueName=f"{prefix}-ends", Attributes=attributes)["QueueUrl"]
    topics: list[str] = []
    for name in ("success", "error"):
        topics.append(sns.create_topic(Name=f"{prefix}-{name}")["TopicArn"])
        sns.subscribe(
            TopicArn=topics[-1],
            Protocol="sqs",
            Endpoint=_queue_arn(sqs, queue),
            Attributes={"RawMessageDelivery": "true"},
        )
    return topics[0], topics[1], queue


def _queue_arn(sqs: Any, url: str) -> str:
    found = sqs.get_queue_attributes(QueueUrl=url, AttributeNames=["QueueArn"])
    return str(found["Attributes"]["QueueArn"])


def _role(iam: Any, name: str, service: str) -> str:
    """A role that the service may take."""
    allow = {"Effect": "Allow", "Principal": {"Service": service}, "Action": "sts:AssumeRole"}
    policy = json.dumps({"Version": "2012-10-17", "Statement": [allow]})
    return str(iam.create_role(RoleName=name, AssumeRolePolicyDocument=policy)["Role"]["Arn"])


def _network(ec2: Any, prefix: str) -> tuple[list[str], list[str]]:
    """Two subnets and a security group, for workers and tasks."""
    vpc = ec2.create_vpc(CidrBlock="10.0.0.0/16")["Vpc"]["VpcId"]
    subnets = [
        str(ec2.create_subnet(VpcId=vpc, CidrBlock=f"10.0.{number}.0/24")["Subnet"]["SubnetId"])
        for number in range(2)
    ]
    group = ec2.create_security_group(GroupName=f"{prefix}-workers", Description="Workers", VpcId=vpc)
    return subnets, [str(group["GroupId"])]


def _tasks(ecs: Any, iam: Any, prefix: str, region: str) -> tuple[str, str]:
    """(cluster, task definition with its revision) of CPU tasks."""
    ecs.create_cluster(clusterName=prefix)
    container = {"name": "tasks", "image": IMAGE.format(region=region, prefix=prefix), "essential": True}
    made = ecs.register_task_definition(
        family=f"{prefix}-task",
        requiresCompatibilities=["FARGATE"],
        networkMode="awsvpc",
        cpu="2048",
        memory="16384",
        taskRoleArn=_role(iam, f"{prefix}-task", "ecs-tasks.amazonaws.com"),
        containerDefinitions=[container],
    )
    return prefix, str(made["taskDefinition"]["taskDefinitionArn"])
