"""Who may do what: every policy of the templates, read statement by statement."""

from __future__ import annotations

import ast
import inspect
import re
from collections.abc import Callable, Iterator
from fnmatch import fnmatchcase
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import botocore.session
import pytest
from botocore import xform_name

from atelier.contract import keys
from tests.architecture.source import ROOT
from tests.unit.cloudformation.templates import (
    CLOUDFRONT,
    LARGE,
    Worked,
    everything,
    studio,
    template,
)

OWN_KEY_POLICIES = {"AWS::KMS::Key"}
"""Where the resource "*" is the resource that has the policy."""


OWN = ("atelier", "<Bucket>", "<Cluster>", "<WorkerGroup>", "<PrivateSubnetA>", "<PrivateSubnetB>")
"""By one of these a resource's name is the studio's own."""
OTHERS = (
    "scalable-target/*",  # Application Auto Scaling draws these names itself; a condition names the service
    "network-interface/*",  # SageMaker makes them; their subnets are named
    "role/aws-service-role/",
    "log-group:/aws/sagemaker/TrainingJobs",
    "connection/1",  # the connection that was given
    "code/",  # the source that was given
    "theirs/",  # buckets to import from that were given
    "others/",
)
"""Names that AWS or the operator chose."""


class Statement(NamedTuple):
    """A statement, the resource of the template it stands in, and the reasons that are written there."""

    where: str
    reasons: dict[str, str]
    body: dict[str, Any]

    @property
    def actions(self) -> list[str]:
        return listed(self.body["Action"])

    @property
    def resources(self) -> list[str]:
        return listed(self.body.get("Resource", []))


def listed(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value]


def policies_of(made: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Every policy document of a resource that says what may be done with what."""
    told = made.get("Properties", {})
    for each in told.get("Policies", []) if made["Type"] == "AWS::IAM::Role" else []:
        yield each["PolicyDocument"]
    for name in ("PolicyDocument", "KeyPolicy", "RepositoryPolicyText"):
        if name in told:
            yield told[name]


@cache
def statements() -> tuple[Statement, ...]:
    """Those of both ways to deploy the studio."""
    found = {}
    for given in (LARGE, CLOUDFRONT):
        for name, stack in studio(given).items():
            for resource, made in stack.resources().items():
                reasons = made.get("Metadata", {}).get("Atelier", {}).get("WildcardReasons", {})
                for document in policies_of(made):
                    for body in document["Statement"]:
                        found[f"{name}.{resource}", repr(body)] = Statement(
                            f"{name}.{resource}", reasons, body
                        )
    return tuple(found.values())


def allowed() -> list[Statement]:
    return [each for each in statements() if each.body["Effect"] == "Allow"]


def unbounded(resource: str) -> bool:
    """Whether a resource is everything, or everything of a service."""
    parts = resource.split(":", 5)
    return resource == "*" or (len(parts) < 6 and not resource.startswith("<")) or parts[-1] == "*"


def test_no_resource_is_everything_without_a_reason() -> None:
    assert len(allowed()) > 40
    used: dict[str, set[str]] = {}
    for each in allowed():
        for action in each.actions:
            if any(unbounded(resource) for resource in each.resources) or "*" in action:
                reason = each.reasons.get(action, "")
                assert len(reason.split()) >= 4, f"{each.where}: {action} without a reason"
                used.setdefault(each.where, set()).add(action)
    for each in statements():
        assert set(each.reasons) == used.get(each.where, set()), f"{each.where}: reasons that nothing needs"


def test_a_resource_names_its_partition_region_account_and_the_studio() -> None:
    """Wildcards stand for what is made later, below a name of the studio's or in its own bucket."""
    for each in allowed():
        for resource in each.resources:
            if resource == "*" or resource.startswith("<"):
                continue
            assert re.match(r"arn:aws:[a-z0-9-]+:(eu-west-1)?:(123456789012)?:", resource), (
                each.where,
                resource,
            )
            named = resource.split(":", 5)[5]
            bounded = any(own in named for own in OWN) or named.startswith(OTHERS)
            assert bounded, f"{each.where}: {resource}"


def test_a_condition_bounds_what_has_no_resource_to_name() -> None:
    unconditional = {
        "ecr:GetAuthorizationToken",
        "sagemaker:ListEndpointConfigs",
        "sagemaker:ListModels",
        "application-autoscaling:DescribeScheduledActions",
        "cloudwatch:DescribeAlarms",
        "servicequotas:ListServiceQuotas",
        "kms:*",
        "ec2:DeleteNetworkInterfacePermission",
        "ec2:DescribeNetworkInterfaces",
        "ec2:DescribeVpcs",
        "ec2:DescribeSubnets",
        "ec2:DescribeSecurityGroups",
        "ec2:DescribeDhcpOptions",
    }
    for each in allowed():
        if "*" in each.resources and not set(each.actions) <= unconditional:
            assert each.body.get("Condition"), f"{each.where}: {each.actions}"


def test_roles_are_passed_by_name_and_to_one_service_alone() -> None:
    passing = [each for each in allowed() if "iam:PassRole" in each.actions]
    assert {(each.where, *sorted(each.resources)) for each in passing} == {
        ("identity.PortalEndpoints", "<CustomRole.Arn>", "<InferenceRole.Arn>"),
        ("identity.PortalTasks", "<TaskLaunchRole.Arn>", "<TaskRole.Arn>"),
    }
    for each in passing:
        assert each.actions == ["iam:PassRole"]
        assert list(each.body["Condition"]) == ["StringEquals"]
        (service,) = listed(each.body["Condition"]["StringEquals"]["iam:PassedToService"])
        assert service in ("sagemaker.amazonaws.com", "ecs-tasks.amazonaws.com")


def test_no_iam_action_but_passing_and_a_services_own_role() -> None:
    found = {action for each in allowed() for action in each.actions if action.startswith(("iam:", "sts:"))}
    assert found == {"iam:PassRole", "iam:CreateServiceLinkedRole"}


def test_the_web_uis_role_can_do_nothing() -> None:
    role = template("identity")["Resources"]["WebUIRole"]["Properties"]
    assert set(role) == {"Description", "AssumeRolePolicyDocument"}
    named = [
        f"{name}.{resource}"
        for name, resource, made in everything()
        if "WebUIRole" in repr(made)
        and resource != "WebUIRole"
        and made["Type"] != "AWS::CloudFormation::Stack"
    ]
    assert named == ["webui.Definition"], "nothing but its task definition names it"


def test_no_policy_of_awss_own_is_attached_and_nobody_holds_full_access() -> None:
    for name, resource, made in everything():
        for each in made.get("Properties", {}).get("ManagedPolicyArns", []):
            assert each == {"Ref": "SageMakerHost"}, f"{name}.{resource}"
    for each in allowed():
        wide = [action for action in each.actions if action.endswith(":*") or action == "*"]
        assert not wide or each.where == "keys.Key", f"{each.where}: {wide}"


def test_roles_are_taken_by_one_service_of_this_account() -> None:
    roles = [
        (f"{name}.{resource}", made)
        for name, resource, made in everything()
        if made["Type"] == "AWS::IAM::Role"
    ]
    assert len(roles) >= 10
    for where, made in roles:
        (statement,) = made["Properties"]["AssumeRolePolicyDocument"]["Statement"]
        assert isinstance(statement["Principal"]["Service"], str), where
        assert statement["Condition"] == {
            "StringEqualsIfExists": {"aws:SourceAccount": {"Ref": "AWS::AccountId"}}
        }, where


def test_workers_write_only_what_is_theirs() -> None:
    written: dict[str, set[str]] = {}
    read: dict[str, set[str]] = {}
    for each in allowed():
        folders = {resource.rsplit("<Bucket>/", 1)[-1] for resource in each.resources}
        if "s3:PutObject" in each.actions:
            written.setdefault(each.where, set()).update(folders)
        if "s3:GetObject" in each.actions:
            read.setdefault(each.where, set()).update(folders)
    assert written == {
        "workers.InferenceRole": {"jobs/*", "answers/*", "endpoints/*", "async/*", "training/*"},
        "workers.CustomRole": {"custom/*"},
        "workers.TrainingRole": {"training/*"},
        "workers.TaskRole": {"tasks/*", "models/*"},
        "identity.PortalStore": {"*"},
    }
    assert read["workers.CustomRole"] == {"custom/*"}
    assert "*" not in read["workers.InferenceRole"] | read["workers.TrainingRole"] | read["workers.TaskRole"]
    deleting = {
        (each.where, resource.rsplit("<Bucket>/", 1)[-1])
        for each in allowed()
        if "s3:DeleteObject" in each.actions
        for resource in each.resources
    }
    assert deleting == {
        ("identity.PortalStore", "*"),
        ("workers.InferenceRole", "jobs/*/preview-*"),
        ("workers.TaskRole", "imports/*"),
    }


def test_models_are_imported_from_the_buckets_that_were_named_and_no_others() -> None:
    (named,) = [each for each in allowed() if each.body.get("Sid") == "ImportFromOtherBuckets"]
    assert named.actions == ["s3:GetObject"]
    assert named.resources == ["arn:aws:s3:::theirs/*", "arn:aws:s3:::others/models/*"]
    without = studio(CLOUDFRONT)["workers"].resources()["TaskRole"]["Properties"]["Policies"][0]
    assert "ImportFromOtherBuckets" not in repr(without)


PROGRAMS = {
    "workers.InferenceRole": ("workers/inference", "workers/runtime", "workers/training/endpoint.py"),
    "workers.TaskRole": ("workers/tasks",),
}
"""Which code runs under which role."""


@pytest.mark.parametrize("role", PROGRAMS)
def test_a_worker_reaches_every_place_that_its_code_names(role: str) -> None:
    bucket = "arn:aws:s3:::<Bucket>/"
    reached = [
        resource.removeprefix(bucket)
        for each in allowed()
        if each.where == role and any(action.startswith("s3:") for action in each.actions)
        for resource in each.resources
        if resource.startswith(bucket)
    ]
    named = {
        node.func.attr
        for path in _files(PROGRAMS[role])
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Call)
        and isinstance(node.func, ast.Attribute)
        and ast.unparse(node.func.value) == "keys"
    }
    assert len(named) >= 4
    for name in named:
        key = _example(getattr(keys, name))
        assert any(fnmatchcase(key, pattern) for pattern in reached), f"{role}: {key}"


def _example(key: Callable[..., str]) -> str:
    """A key with something for each of its names."""
    given = inspect.signature(key).parameters.values()
    return key(*(1 if "int" in str(each.annotation) else "x" for each in given))


def test_nobody_but_the_launcher_reads_the_first_password() -> None:
    readers = [
        each.where
        for each in allowed()
        if "secretsmanager:GetSecretValue" in each.actions and "<AdminSecret>" in each.resources
    ]
    assert readers == ["identity.LaunchRole"]
    for each in allowed():
        if "secretsmanager:GetSecretValue" in each.actions and each.where != "identity.LaunchRole":
            assert not any(
                re.fullmatch(
                    resource.replace("*", ".*"), f"{resource.split(':secret:')[0]}:secret:atelier/{name}-x"
                )
                for resource in each.resources
                for name in ("admin", "database", "origin")
            ), each.where


def test_endpoints_are_made_with_the_studios_tag_alone() -> None:
    making = [each for each in allowed() if any(":Create" in action for action in each.actions)]
    sagemaker = [each for each in making if each.actions[0].startswith("sagemaker:")]
    assert len(sagemaker) == 1
    assert sagemaker[0].body["Condition"] == {"StringEquals": {"aws:RequestTag/Project": "atelier"}}


# --- what the portal asks of AWS, found in its source, against what its role may

SOURCES = ("portal/adapters/aws", "atelier/storage/s3.py")
SERVICES = {
    "s3": "s3",
    "sagemaker": "sagemaker",
    "sagemaker-runtime": "sagemaker",
    "application-autoscaling": "application-autoscaling",
    "cloudwatch": "cloudwatch",
    "sqs": "sqs",
    "ecs": "ecs",
    "logs": "logs",
    "secretsmanager": "secretsmanager",
    "service-quotas": "servicequotas",
}
"""Services that the portal has clients of, and how IAM calls them."""
OTHERWISE_NAMED = {
    "s3:HeadObject": "s3:GetObject",
    "s3:HeadBucket": "s3:ListBucket",
    "s3:ListObjectsV2": "s3:ListBucket",
    "s3:CreateMultipartUpload": "s3:PutObject",
    "s3:UploadPart": "s3:PutObject",
    "s3:CompleteMultipartUpload": "s3:PutObject",
    "s3:UploadFileobj": "s3:PutObject",
}
"""Calls whose action has another name (Actions, resources, and condition keys for Amazon S3)."""
ON_THE_WAY = {
    "sagemaker:AddTags": "creating with tags",
    "sagemaker:UpdateEndpointWeightsAndCapacities": "registering a scalable target",
    "cloudwatch:TagResource": "an alarm with tags",
    "ecs:TagResource": "running a task with tags",
    "secretsmanager:TagResource": "a secret with tags",
    "iam:PassRole": "creating a model, running a task",
    "iam:CreateServiceLinkedRole": "the first scalable target of an account",
    "kms:Decrypt": "reading what is encrypted",
    "kms:GenerateDataKey": "writing it",
    "kms:DescribeKey": "creating an endpoint with a key",
    "kms:CreateGrant": "an endpoint's encrypted disk",
}
"""Actions that no call of ours names, and which call needs them."""


@cache
def calls() -> frozenset[str]:
    """IAM's names of every call that the source makes of boto3's clients."""
    session = botocore.session.get_session()
    words = {word for path in _files(SOURCES) for word in _words(ast.parse(path.read_text(encoding="utf-8")))}
    words.discard("search")  # of regular expressions, not SageMaker's
    found = set()
    for service, prefix in SERVICES.items():
        for operation in session.get_service_model(service).operation_names:
            if xform_name(operation) in words:
                found.add(f"{prefix}:{operation}")
    if "upload_fileobj" in words:
        found.add("s3:UploadFileobj")
    return frozenset(OTHERWISE_NAMED.get(each, each) for each in found)


def _files(places: tuple[str, ...]) -> list[Path]:
    return [file for each in places for file in (sorted((ROOT / each).rglob("*.py")) or [ROOT / each])]


def _words(tree: ast.Module) -> Iterator[str]:
    """What is called or named: `client.create_model`, getattr's and paginators' words."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute):
            yield node.attr
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            yield node.value


def granted() -> set[str]:
    return {
        action for each in allowed() if each.where.startswith("identity.Portal") for action in each.actions
    }


def test_the_portals_role_may_everything_that_its_adapters_call() -> None:
    assert len(calls()) >= 25
    assert calls() <= granted(), sorted(calls() - granted())


def test_what_registers_a_scalable_target_may_change_the_endpoints_own_instances() -> None:
    (held,) = [each for each in allowed() if "sagemaker:UpdateEndpointWeightsAndCapacities" in each.actions]
    assert held.where == "identity.PortalEndpoints" and "sagemaker:DescribeEndpoint" in held.actions
    assert "arn:aws:sagemaker:eu-west-1:123456789012:endpoint/atelier-*" in held.resources


def test_the_portals_role_may_nothing_that_nothing_calls() -> None:
    idle = granted() - calls() - set(ON_THE_WAY)
    assert idle == set(), sorted(idle)
    assert set(ON_THE_WAY) <= granted()


@pytest.mark.parametrize("name", ["identity", "workers", "api", "images", "network", "keys", "data"])
def test_a_template_with_policies_has_them_read_here(name: str) -> None:
    written = sum(text.count("Effect: ") for text in [(ROOT / f"cloudformation/{name}.yaml").read_text()])
    roles = sum(made["Type"] == "AWS::IAM::Role" for made in Worked(name).template["Resources"].values())
    read = len([each for each in statements() if each.where.startswith(f"{name}.")])
    assert read == written - roles, "each role has one further statement: who may take it"
