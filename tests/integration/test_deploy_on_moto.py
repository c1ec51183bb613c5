"""Both scripts against moto: what they ask of AWS is what AWS's own descriptions know, and it comes about."""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from moto import mock_aws

from tests.integration.aws_stand_ins import OnMoto, StandIns, stand_ins
from tests.integration.test_deploy_script import CERTIFIED, NAMES, WORDS

pytestmark = pytest.mark.long

ROOT = Path(__file__).resolve().parents[2]
ROOT_TEMPLATE = """
AWSTemplateFormatVersion: "2010-09-09"
Parameters:
  AssetsBucket: { Type: String }
  AssetsPrefix: { Type: String }
  GatewayCodeKey: { Type: String }
  Prefix: { Type: String, Default: atelier }
  CloudFrontPrefixList: { Type: String, Default: "" }
  DomainName: { Type: String, Default: "" }
  CertificateArn: { Type: String, Default: "" }
  DeletionProtection: { Type: String, Default: "true" }
  PortalImage: { Type: String, Default: "" }
  WebUIImage: { Type: String, Default: "" }
  InferenceImage: { Type: String, Default: "" }
  TasksImage: { Type: String, Default: "" }
Resources:
  Portal:
    Type: AWS::ECR::Repository
    Properties: { RepositoryName: !Sub "${Prefix}/portal", EmptyOnDelete: true }
  WebUI:
    Type: AWS::ECR::Repository
    Properties: { RepositoryName: !Sub "${Prefix}/webui", EmptyOnDelete: true }
  Inference:
    Type: AWS::ECR::Repository
    Properties: { RepositoryName: !Sub "${Prefix}/inference", EmptyOnDelete: true }
  Training:
    Type: AWS::ECR::Repository
    Properties: { RepositoryName: !Sub "${Prefix}/training", EmptyOnDelete: true }
  Tasks:
    Type: AWS::ECR::Repository
    Properties: { RepositoryName: !Sub "${Prefix}/tasks", EmptyOnDelete: true }
  Logs: { Type: AWS::Logs::LogGroup, Properties: { LogGroupName: !Sub "/${Prefix}/portal" } }
Outputs:
  WebUIUrl: { Value: !Sub "https://${DomainName}" }
  WebPortalUrl: { Value: !Sub "https://${DomainName}/portal/" }
  AdminSecretArn: { Value: !Sub "arn:aws:secretsmanager:eu-west-1:${AWS::AccountId}:secret:${Prefix}/admin" }
"""
"""As much of main.yaml as moto can make: the registry, a log, the parameters and the outputs."""
ENVIRONMENT = {"PARAMETERS": CERTIFIED}


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("project")
    for name in ("deployment/lambda", "cloudformation"):
        shutil.copytree(ROOT / name, folder / name)
    (folder / "cloudformation" / "main.yaml").write_text(ROOT_TEMPLATE, encoding="utf-8")
    for name in ("build_and_deploy.sh", "teardown.sh", "shell.sh"):
        shutil.copy(ROOT / "deployment" / name, folder / "deployment")
    for name in ("atelier", "portal", "webui", "workers", "extensions", "models", "deployment/images"):
        (folder / name).mkdir()
        (folder / name / "__init__.py").write_text("", encoding="utf-8")
    for name in "pyproject.toml constraints.txt constraints-cuda.txt README.md LICENSE Makefile".split():
        (folder / name).write_text(name, encoding="utf-8")
    for name in NAMES:
        (folder / "deployment" / "images" / f"{name}.Dockerfile").write_text(
            f"FROM python\nCOPY atelier /{name}\n", encoding="utf-8"
        )
    return folder


@pytest.fixture
def cloud(place: Path, tmp_path: Path) -> Iterator[tuple[StandIns, OnMoto]]:
    with mock_aws(), stand_ins(tmp_path / "bin") as path:
        made = OnMoto("eu-west-1")
        made.standing = place
        path.answer = made
        # moto knows no quotas of SageMaker, which the script takes for "not known".
        made.refused["service-quotas", "list-service-quotas"] = "\nNot known.\n"
        where = {"LocationConstraint": "eu-west-1"}
        made.client("s3").create_bucket(Bucket="tools", CreateBucketConfiguration=where)
        yield path, made


def keys(made: OnMoto) -> list[str]:
    told = made.client("s3").list_objects_v2(Bucket="tools")
    return [each["Key"] for each in told.get("Contents", ())]


def test_a_deployment_comes_about_and_a_second_one_changes_nothing(
    cloud: tuple[StandIns, OnMoto], place: Path
) -> None:
    path, made = cloud
    script = place / "deployment" / "build_and_deploy.sh"
    ended = path.run(script, *WORDS, **ENVIRONMENT)
    assert ended.code == 0, ended.err + ended.out
    assert "WebUIUrl        https://studio.example.com\n" in ended.out
    assert "WebPortalUrl    https://studio.example.com/portal/\n" in ended.out
    templates = sorted(each.name for each in (place / "cloudformation").glob("*.yaml"))
    there = [key.rsplit("/", 1)[-1] for key in keys(made) if "/cloudformation/" in key]
    assert sorted(there) == templates
    [stack] = made.client("cloudformation").describe_stacks(StackName="atelier")["Stacks"]
    values = {each["ParameterKey"]: each["ParameterValue"] for each in stack["Parameters"]}
    for parameter, name in (("PortalImage", "portal"), ("InferenceImage", "inference")):
        image = made.client("ecr").describe_images(repositoryName=f"atelier/{name}")["imageDetails"][0]
        assert values[parameter].endswith(f"atelier/{name}@{image['imageDigest']}")
    assert values["DomainName"] == "studio.example.com"
    assert stack["Tags"] == [{"Key": "Project", "Value": "atelier"}]
    before = keys(made)
    again = path.run(script, *WORDS)
    assert again.code == 0, again.err + again.out
    assert not again.lines("docker", "buildx", "build") and not again.lines("docker", "push")
    assert [key for key in keys(made) if key not in before and "deployments" not in key] == []
    [stack] = made.client("cloudformation").describe_stacks(StackName="atelier")["Stacks"]
    kept = {each["ParameterKey"]: each["ParameterValue"] for each in stack["Parameters"]}
    assert kept == values, "what is not named again stays as it was"


def test_a_teardown_removes_what_costs_and_leaves_what_is_others(
    cloud: tuple[StandIns, OnMoto], place: Path
) -> None:
    path, made = cloud
    ended = path.run(place / "deployment" / "build_and_deploy.sh", *WORDS, **ENVIRONMENT)
    assert ended.code == 0, ended.err + ended.out
    _populated(made)
    script = place / "deployment" / "teardown.sh"
    listed = path.run(script, "--list", *WORDS)
    assert listed.code == 0, listed.err
    for words in (
        r"endpoint +atelier-portraits +1 x ml.g4dn.xlarge, \$0.74 an hour, \$537.28 a month",
        r"stack +atelier",
        r"repository +atelier/portal",
        r"log-group +/atelier/portal",
        r"secret +atelier/admin +\$0.40 a month",
        r"alarm +atelier-portraits-out",
        r"scalable-target +endpoint/atelier-portraits/variant/main",
        r"bucket +atelier-data-bucket-1x",
        r"key +[0-9a-f-]{36} +\$1.00 a month",
        r"upload +s3://tools/studio/",
    ):
        assert re.search(words, listed.out), (words, listed.out)
    assert "somebody" not in listed.out
    removed = path.run(script, "--yes", *WORDS)
    assert removed.code == 0, removed.err + removed.out
    assert "Nothing is left that was made for 'atelier' in eu-west-1." in removed.out
    for operation, kind in (
        ("list_endpoints", "Endpoint"),
        ("list_endpoint_configs", "EndpointConfig"),
        ("list_models", "Model"),
    ):
        told = getattr(made.client("sagemaker"), operation)()[f"{kind}s"]
        assert {each[f"{kind}Name"] for each in told} == {"atelier-test-x", "somebody-else"}
    buckets = {each["Name"] for each in made.client("s3").list_buckets()["Buckets"]}
    assert buckets == {"somebody-else", "tools"}
    assert keys(made) == ["studio/somebody.txt"]
    assert made.client("secretsmanager").list_secrets()["SecretList"] == []
    assert made.client("cloudwatch").describe_alarms()["MetricAlarms"] == []
    again = path.run(script, "--yes", *WORDS)
    assert again.code == 0 and "Nothing is left" in again.out
    assert not [
        words for words in again.commands if words[4].startswith(("delete", "schedule", "deregister"))
    ]


def _populated(made: OnMoto) -> None:
    """What a studio at work has beside its stack, and things of somebody else."""
    tags = [{"Key": "Project", "Value": "atelier"}]
    sagemaker = made.client("sagemaker")
    for name in ("atelier-portraits", "atelier-test-x", "somebody-else"):
        role = "arn:aws:iam::123456789012:role/x"
        own = tags if name == "atelier-portraits" else []
        own = own or [{"Key": "Project", "Value": name.removesuffix("-x")}]
        container = {"Image": "x"}
        sagemaker.create_model(ModelName=name, ExecutionRoleArn=role, PrimaryContainer=container, Tags=own)
        variant = {"VariantName": "main", "ModelName": name, "InstanceType": "ml.g4dn.xlarge"}
        variant |= {"InitialInstanceCount": 1, "InitialVariantWeight": 1.0}
        sagemaker.create_endpoint_config(EndpointConfigName=name, ProductionVariants=[variant], Tags=own)
        sagemaker.create_endpoint(EndpointName=name, EndpointConfigName=name, Tags=own)
    made.client("application-autoscaling").register_scalable_target(
        ServiceNamespace="sagemaker",
        ResourceId="endpoint/atelier-portraits/variant/main",
        ScalableDimension="sagemaker:variant:DesiredInstanceCount",
        MinCapacity=0,
        MaxCapacity=2,
    )
    made.client("cloudwatch").put_metric_alarm(
        AlarmName="atelier-portraits-out",
        ComparisonOperator="GreaterThanThreshold",
        EvaluationPeriods=1,
        MetricName="Demand",
        Namespace="Atelier",
        Period=60,
        Threshold=1,
        Statistic="Maximum",
        Tags=tags,
    )
    made.client("secretsmanager").create_secret(Name="atelier/admin", SecretString="x", Tags=tags)
    made.client("kms").create_key(
        Description="Everything that the studio atelier keeps",
        Tags=[{"TagKey": each["Key"], "TagValue": each["Value"]} for each in tags],
    )
    store, where = made.client("s3"), {"LocationConstraint": "eu-west-1"}
    for name in ("atelier-data-bucket-1x", "somebody-else"):
        store.create_bucket(Bucket=name, CreateBucketConfiguration=where)
        store.put_bucket_tagging(Bucket=name, Tagging={"TagSet": tags})
        store.put_bucket_versioning(Bucket=name, VersioningConfiguration={"Status": "Enabled"})
        for _ in range(2):
            store.put_object(Bucket=name, Key="jobs/1.png", Body=b"x" * 1000)
        store.delete_object(Bucket=name, Key="jobs/1.png")
    store.put_object(Bucket="tools", Key="studio/somebody.txt", Body=b"theirs")
