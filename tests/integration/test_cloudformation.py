"""The studio's stacks made and taken away again by moto's CloudFormation: every type of resource that it
knows becomes a thing of the account, and nothing of it is left.
"""

from __future__ import annotations

import io
import json
import re
import zipfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import boto3
import pytest
from moto import mock_aws
from moto.cloudformation.parsing import resource_class_from_type

from tests.architecture.source import ROOT
from tests.unit.cloudformation.templates import (
    ACCOUNT,
    CLOUDFRONT,
    LARGE,
    NESTED,
    REGION,
    Worked,
    everything,
)

pytestmark = pytest.mark.long
Removal = Callable[[boto3.session.Session, str], Any]

UNKNOWN_TO_MOTO = {
    "AWS::ApiGatewayV2::Api",
    "AWS::ApiGatewayV2::Integration",
    "AWS::ApiGatewayV2::Route",
    "AWS::ApiGatewayV2::Stage",
    "AWS::ApplicationAutoScaling::ScalableTarget",
    "AWS::ApplicationAutoScaling::ScalingPolicy",
    "AWS::Budgets::Budget",
    "AWS::CloudFront::Distribution",
    "AWS::CloudFront::ResponseHeadersPolicy",
    "AWS::CloudWatch::Alarm",
    "AWS::CodeBuild::Project",
    "AWS::Cognito::UserPool",
    "AWS::Cognito::UserPoolClient",
    "AWS::Cognito::UserPoolDomain",
    "AWS::RDS::DBCluster",
    "AWS::RDS::DBClusterParameterGroup",
    "AWS::S3::BucketPolicy",
    "AWS::SNS::Subscription",
    "AWS::SNS::TopicPolicy",
    "AWS::SQS::QueuePolicy",
    "AWS::SecretsManager::Secret",
    "AWS::ServiceDiscovery::HttpNamespace",
}
"""Types that moto's CloudFormation cannot make: cfn-lint and the tests of the templates look at them."""
BEYOND_MOTO = {
    "AWS::RDS::DBInstance": "It makes instances of its own engines alone, and Aurora's is none of them.",
}
"""Types that it knows, but not as they are used here, and why."""
LEFT_OUT = UNKNOWN_TO_MOTO | set(BEYOND_MOTO)


def _route_table(account: boto3.session.Session, identifier: str) -> None:
    ec2 = account.client("ec2")
    (table,) = ec2.describe_route_tables(RouteTableIds=[identifier])["RouteTables"]
    for each in table["Associations"]:
        ec2.disassociate_route_table(AssociationId=each["RouteTableAssociationId"])
    ec2.delete_route_table(RouteTableId=identifier)


def _gateway(account: boto3.session.Session, identifier: str) -> None:
    ec2 = account.client("ec2")
    (gateway,) = ec2.describe_internet_gateways(InternetGatewayIds=[identifier])["InternetGateways"]
    for each in gateway["Attachments"]:
        ec2.detach_internet_gateway(InternetGatewayId=identifier, VpcId=each["VpcId"])
    ec2.delete_internet_gateway(InternetGatewayId=identifier)


def _address(account: boto3.session.Session, identifier: str) -> None:
    ec2 = account.client("ec2")
    (address,) = ec2.describe_addresses(PublicIps=[identifier])["Addresses"]
    ec2.release_address(AllocationId=address["AllocationId"])


FORGOTTEN: dict[str, Removal] = {
    "AWS::ECS::Service": lambda account, arn: account.client("ecs").delete_service(
        cluster=arn.split("/")[-2], service=arn, force=True
    ),
    "AWS::ECS::TaskDefinition": lambda account, arn: account.client("ecs").deregister_task_definition(
        taskDefinition=arn
    ),
    "AWS::ECS::Cluster": lambda account, name: account.client("ecs").delete_cluster(cluster=name),
    "AWS::IAM::ManagedPolicy": lambda account, arn: account.client("iam").delete_policy(PolicyArn=arn),
    "AWS::EC2::FlowLog": lambda account, name: account.client("ec2").delete_flow_logs(FlowLogIds=[name]),
    "AWS::EC2::VPCEndpoint": lambda account, name: account.client("ec2").delete_vpc_endpoints(
        VpcEndpointIds=[name]
    ),
    "AWS::EC2::NatGateway": lambda account, name: account.client("ec2").delete_nat_gateway(NatGatewayId=name),
    "AWS::EC2::EIP": _address,
    "AWS::EC2::InternetGateway": _gateway,
    "AWS::EC2::RouteTable": _route_table,
}
"""Types that moto's CloudFormation makes and does not take away again: that is done here for it."""
FORGOTTEN_AND_USED: dict[str, Removal] = {
    "AWS::ElasticLoadBalancingV2::TargetGroup": lambda account, arn: account.client(
        "elbv2"
    ).delete_target_group(TargetGroupArn=arn),
}
"""The same, of those that something of another stack holds until it is gone."""


@dataclass
class Stack:
    """A stack that was made: its outputs, and the physical id and type of what is in it."""

    name: str
    told: dict[str, str]
    made: dict[str, tuple[str, str]] = field(default_factory=dict)

    def outputs(self) -> dict[str, str]:
        return self.told


class Deployment:
    """main.yaml, played: moto hands no outputs from a nested stack to its neighbour, so each is made by
    itself in main's order, with what main gives it.
    """

    def __init__(self, aws: boto3.session.Session, given: Mapping[str, str]) -> None:
        self._account, self._name = aws, str(given.get("Prefix", "atelier"))
        self._formation = aws.client("cloudformation")
        self._main = Worked("main", given)
        self.stacks: dict[str, Stack] = {}

    def make(self) -> None:
        """Every stack, in main's order."""
        for name, each in self._main.resources().items():
            assert each["Type"] == NESTED
            stem = each["Properties"]["TemplateURL"].rsplit("/", 1)[1].removesuffix(".yaml")
            parameters = self._main.value(self._main.template["Resources"][name]["Properties"]["Parameters"])
            made = self.stacks[stem] = self._made(stem, parameters)
            self._main.stand_in(name, made)

    def _made(self, stem: str, parameters: Mapping[str, Any]) -> Stack:
        known = frozenset(
            name
            for name, each in Worked(stem, parameters).resources().items()
            if each["Type"] not in LEFT_OUT
        )
        worked = Worked(stem, parameters, known)
        resources = {name: each for name, each in worked.resources().items() if name in known}
        for each in resources.values():
            waits = each.pop("DependsOn", [])
            each["DependsOn"] = [
                one for one in ([waits] if isinstance(waits, str) else waits) if one in known
            ]
        if not resources:
            return Stack(stem, {key: str(value) for key, value in worked.outputs().items()})
        body = {
            "Resources": resources,
            "Outputs": {key: {"Value": value} for key, value in worked.outputs().items()},
        }
        # What is left out has no ARN and no secret; what names them is told something of the same form.
        text = json.dumps(body).replace("{{resolve:", "{{")
        text = re.sub(r"<(\w+)\.Arn>", rf"arn:aws:codebuild:{REGION}:{ACCOUNT}:project/\1", text)
        self._formation.create_stack(
            StackName=f"{self._name}-{stem}", TemplateBody=text, Capabilities=["CAPABILITY_IAM"]
        )
        return self._seen(stem, tuple(worked.outputs()))

    def _seen(self, stem: str, names: tuple[str, ...]) -> Stack:
        (told,) = self._formation.describe_stacks(StackName=f"{self._name}-{stem}")["Stacks"]
        assert told["StackStatus"] == "CREATE_COMPLETE", told
        parts = self._formation.list_stack_resources(StackName=f"{self._name}-{stem}")[
            "StackResourceSummaries"
        ]
        # moto knows not every attribute; its neighbours are told something in its place.
        outputs = {name: f"<{name}>" for name in names}
        outputs |= {each["OutputKey"]: each["OutputValue"] for each in told.get("Outputs", [])}
        made = {
            each["LogicalResourceId"]: (each["PhysicalResourceId"], each["ResourceType"]) for each in parts
        }
        return Stack(stem, outputs, made)

    def unmake(self) -> None:
        """Every stack, the last one first."""
        for stem, stack in reversed(self.stacks.items()):
            self._remove_forgotten(stack, FORGOTTEN)
            if stack.made:
                self._formation.delete_stack(StackName=f"{self._name}-{stem}")
        for stack in self.stacks.values():
            self._remove_forgotten(stack, FORGOTTEN_AND_USED)

    def _remove_forgotten(self, stack: Stack, removals: Mapping[str, Removal]) -> None:
        for kind, remove in removals.items():
            for identifier, made in stack.made.values():
                if made == kind:
                    remove(self._account, identifier)


@pytest.fixture(scope="module")
def aws() -> Iterator[boto3.session.Session]:
    """An account with nothing in it but the code of the Lambda and a zone."""
    given = {"aws_access_key_id": "testing", "aws_secret_access_key": "testing"}
    with mock_aws():
        account = boto3.session.Session(**given, region_name=REGION)
        packed = io.BytesIO()
        with zipfile.ZipFile(packed, "w") as archive:
            archive.write(ROOT / "deployment/lambda/gateway.py", "gateway.py")
        s3 = account.client("s3")
        s3.create_bucket(Bucket="assets", CreateBucketConfiguration={"LocationConstraint": REGION})
        s3.put_object(Bucket="assets", Key="atelier/lambda/gateway.zip", Body=packed.getvalue())
        account.client("route53").create_hosted_zone(Name="example.com", CallerReference="1")
        yield account


@pytest.fixture(scope="module")
def deployed(aws: boto3.session.Session) -> Iterator[Deployment]:
    zone = aws.client("route53").list_hosted_zones()["HostedZones"][0]["Id"].rsplit("/", 1)[1]
    certificate = aws.client("acm").request_certificate(DomainName=LARGE["DomainName"])["CertificateArn"]
    made = Deployment(aws, LARGE | {"HostedZoneId": zone, "CertificateArn": certificate})
    made.make()
    yield made


def test_the_types_that_moto_does_not_know_are_the_ones_listed_here() -> None:
    types = {made["Type"] for _, _, made in everything()}
    known = {each for each in types if resource_class_from_type(each) is not None}
    assert types - known == UNKNOWN_TO_MOTO
    assert len(known) >= 35


def test_every_type_that_moto_knows_is_made(deployed: Deployment) -> None:
    made = {kind for stack in deployed.stacks.values() for _, kind in stack.made.values()}
    wanted = {each["Type"] for _, _, each in everything()} - LEFT_OUT - {NESTED}
    assert made == wanted


def test_what_is_made_is_what_the_templates_say(aws: boto3.session.Session, deployed: Deployment) -> None:
    cluster = deployed.stacks["network"].told["Cluster"]
    ecs = aws.client("ecs")
    services = ecs.describe_services(cluster=cluster, services=["portal", "webui"])["services"]
    assert {each["serviceName"]: each["desiredCount"] for each in services} == {"portal": 2, "webui": 2}
    definition = ecs.describe_task_definition(taskDefinition="atelier-portal")["taskDefinition"]
    assert [each["image"] for each in definition["containerDefinitions"]] == ["portal@sha256:1"] * 2
    bucket = deployed.stacks["data"].told["Bucket"]
    rules = aws.client("s3").get_bucket_encryption(Bucket=bucket)["ServerSideEncryptionConfiguration"][
        "Rules"
    ]
    assert rules[0]["ApplyServerSideEncryptionByDefault"] == {
        "SSEAlgorithm": "aws:kms",
        "KMSMasterKeyID": deployed.stacks["keys"].told["KeyArn"],
    }
    listener = deployed.stacks["entrance"].told["ListenerArn"]
    rules = aws.client("elbv2").describe_rules(ListenerArn=listener)["Rules"]
    assert {each["Priority"] for each in rules} == {
        "10",
        "20",
        "30",
        "40",
        "50",
        "60",
        "70",
        "1000",
        "default",
    }
    groups = aws.client("logs").describe_log_groups(logGroupNamePrefix="/atelier/")["logGroups"]
    assert {each["retentionInDays"] for each in groups} == {30}
    assert {each["logGroupName"] for each in groups} >= {
        "/atelier/portal",
        "/atelier/webui",
        "/atelier/tasks",
    }
    queue = deployed.stacks["workers"].told["QueueUrl"]
    told = aws.client("sqs").get_queue_attributes(QueueUrl=queue, AttributeNames=["All"])["Attributes"]
    assert json.loads(told["RedrivePolicy"])["maxReceiveCount"] == 10


def test_the_roles_in_the_account_hold_the_policies_of_the_templates(
    aws: boto3.session.Session, deployed: Deployment
) -> None:
    iam = aws.client("iam")
    roles = {
        name: identifier
        for stack in deployed.stacks.values()
        for name, (identifier, kind) in stack.made.items()
        if kind == "AWS::IAM::Role"
    }
    web = roles["WebUIRole"]
    assert iam.list_role_policies(RoleName=web)["PolicyNames"] == []
    assert iam.list_attached_role_policies(RoleName=web)["AttachedPolicies"] == []
    assert sorted(iam.list_role_policies(RoleName=roles["PortalRole"])["PolicyNames"]) == [
        "cpu-tasks",
        "endpoints-and-their-scaling",
        "store-secrets-and-queue",
    ]
    (host,) = iam.list_policies(Scope="Local")["Policies"]
    assert "SageMakerHost" in host["PolicyName"]


def test_everything_goes_again(aws: boto3.session.Session, deployed: Deployment) -> None:
    deployed.unmake()
    ask = aws.client
    ec2 = ask("ec2")
    left = [
        ask("cloudformation").describe_stacks()["Stacks"],
        [
            each
            for each in ask("ecs").describe_clusters(clusters=["atelier"])["clusters"]
            if each["status"] == "ACTIVE"
        ],
        ask("ecs").list_task_definitions()["taskDefinitionArns"],
        ask("elbv2").describe_load_balancers()["LoadBalancers"],
        ask("elbv2").describe_target_groups()["TargetGroups"],
        ask("logs").describe_log_groups()["logGroups"],
        ask("lambda").list_functions()["Functions"],
        ask("iam").list_roles()["Roles"],
        ask("iam").list_policies(Scope="Local")["Policies"],
        ask("sqs").list_queues().get("QueueUrls", []),
        ask("sns").list_topics()["Topics"],
        ask("ecr").describe_repositories()["repositories"],
        ask("events").list_rules()["Rules"],
        ask("cloudwatch").list_dashboards()["DashboardEntries"],
        ask("rds").describe_db_subnet_groups()["DBSubnetGroups"],
        [each for each in ec2.describe_vpcs()["Vpcs"] if not each["IsDefault"]],
        ec2.describe_addresses()["Addresses"],
        ec2.describe_internet_gateways()["InternetGateways"],
        ec2.describe_flow_logs()["FlowLogs"],
        [each for each in ec2.describe_nat_gateways()["NatGateways"] if each["State"] != "deleted"],
        [each for each in ec2.describe_vpc_endpoints()["VpcEndpoints"] if each["State"] != "deleted"],
    ]
    assert [each for each in left if each] == []
    assert [each["Name"] for each in ask("s3").list_buckets()["Buckets"]] == ["assets"]


def test_behind_cloudfront_the_stacks_are_made_too(aws: boto3.session.Session) -> None:
    made = Deployment(aws, CLOUDFRONT | {"Prefix": "second"})
    made.make()
    assert made.stacks["cloudfront"].made == {}
    listener = made.stacks["entrance"].told["ListenerArn"]
    rules = aws.client("elbv2").describe_rules(ListenerArn=listener)["Rules"]
    guarded = [
        each for each in rules if any(one["Field"] == "http-header" for one in each.get("Conditions", []))
    ]
    assert len(guarded) == len(rules) - 1, "all but the default, which answers 403"
    made.unmake()
