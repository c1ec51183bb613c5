"""deployment/build_and_deploy.sh with stand-ins for aws, docker and zip: every command line it runs, and what
it says.
"""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest
import yaml

from tests.integration.aws_stand_ins import Ended, Reply, StandIns, parsed, stand_ins
from tests.unit.cloudformation.templates import CLOUDFRONT, LARGE, studio

ROOT = Path(__file__).resolve().parents[2]
WORDS = ("s3://tools/studio", "eu-west-1", "stable-diffusion-webui")
NAMES = ("portal", "webui", "inference", "training", "tasks")
CERTIFIED = "DomainName=studio.example.com CertificateArn=arn:aws:acm:eu-west-1:123456789012:certificate/1"


@dataclass
class Account:
    """An account as the script sees it: the state of its stack, what the bucket and the registry hold."""

    status: str = "NONE"
    after: list[str] = field(default_factory=list)
    """What the stack's state is after each wait."""
    objects: set[str] = field(default_factory=set)
    images: set[str] = field(default_factory=set)
    built: set[str] = field(default_factory=set)
    form: str = "application/vnd.docker.distribution.manifest.v2+json"
    """How the registry holds the images."""
    replies: dict[str, Reply] = field(default_factory=dict)
    """What is answered to command lines that begin so, rather than what follows here."""

    def __call__(self, words: list[str]) -> Reply:
        line = " ".join(words[3:] if words[0] == "aws" else words)
        for start, reply in self.replies.items():
            if line.startswith(start):
                return reply
        return self._docker(words[1:]) if words[0] == "docker" else self._aws(line, words)

    def _docker(self, words: list[str]) -> Reply:
        if words[:2] == ["buildx", "build"]:
            self.built.add(words[words.index("--tag") + 1])
        if words[0] == "push":
            self.images.add(words[-1].partition("/")[2])
        if words[:2] == ["image", "inspect"]:
            return Reply(code=0 if words[2] in self.built else 1)
        return Reply("28.0.0\n" if words[0] == "version" else "")

    def _aws(self, line: str, words: list[str]) -> Reply:
        if line.startswith("cloudformation"):
            return self._stack(line)
        if line.startswith("s3api head-object"):
            return Reply(code=0 if words[-1] in self.objects else 254)
        if line.startswith("s3 cp"):
            self.objects.add(parsed(words[1:]).options[""][1].removeprefix("s3://tools/"))
        if line.startswith("ecr describe-images"):
            options = parsed(words[1:]).options
            name = f"{options['repository-name'][0]}:{options['image-ids'][0].removeprefix('imageTag=')}"
            return (
                Reply(f"sha256:{name}\t{self.form}\n")
                if name in self.images
                else Reply(code=254, err="not found\n")
            )
        told = {
            "sts": "123456789012\n",
            "ec2 describe-managed-prefix-lists": "pl-4fa04526\n",
            "s3api get-bucket-location": "eu-west-1\n",
            "service-quotas": "2.0\n",
            "ecr get-login-password": "a password\n",
        }
        return Reply(next((said for start, said in told.items() if line.startswith(start)), ""))

    def _stack(self, line: str) -> Reply:
        if "wait" in line:
            self.status = self.after.pop(0) if self.after else self.status
            return Reply(code=0 if self.status.endswith("E_COMPLETE") else 255)
        if "create-stack" in line:
            self.status, self.after = "CREATE_IN_PROGRESS", self.after or ["CREATE_COMPLETE"]
        if "update-stack" in line:
            self.after = self.after or ["UPDATE_COMPLETE"]
        if "delete-stack" in line:
            self.status = "DELETE_IN_PROGRESS"
        if "describe-stack-events" in line:
            return Reply("Database\tThe cluster has no room.\n")
        if "OutputKey" in line:
            return Reply(f"<{line.split(chr(39))[1]}>\n")
        if "ParameterKey==" in line:
            return Reply("\n")
        if "Parameters[].ParameterKey" in line:
            return Reply("AlarmEmail\tPortalImage\tAssetsBucket\tGone\n")
        if "StackStatus" in line and self.status in ("NONE", "DELETE_COMPLETE"):
            return Reply(code=254, err="\nAn error occurred: Stack with id atelier does not exist\n")
        return Reply(f"{self.status}\n")


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tree with the real scripts and templates, and images that are soon described."""
    folder = tmp_path_factory.mktemp("project")
    for name in ("deployment/lambda", "cloudformation"):
        shutil.copytree(ROOT / name, folder / name)
    for name in ("build_and_deploy.sh", "teardown.sh", "shell.sh"):
        shutil.copy(ROOT / "deployment" / name, folder / "deployment")
    for name in ("atelier", "portal", "webui", "workers", "extensions", "models", "deployment/images"):
        (folder / name).mkdir()
        (folder / name / "__init__.py").write_text("", encoding="utf-8")
    for name in (
        "pyproject.toml",
        "constraints.txt",
        "constraints-cuda.txt",
        "README.md",
        "LICENSE",
        "Makefile",
    ):
        (folder / name).write_text(name, encoding="utf-8")
    for name in NAMES:
        copied = {"portal": "portal", "webui": "webui"}.get(name, "workers")
        text = (
            f"FROM python\nCOPY --chown=1 \\\n  atelier {copied} ./\nCOPY --from=base /x /y\nCOPY *.toml ./\n"
        )
        (folder / "deployment" / "images" / f"{name}.Dockerfile").write_text(text, encoding="utf-8")
    return folder


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Iterator[StandIns]:
    with stand_ins(tmp_path_factory.mktemp("stand-ins") / "bin") as made:
        yield made


class Deployment:
    """The script before an account."""

    def __init__(self, place: Path, path: StandIns) -> None:
        self._place, self._path, self.account = place, path, Account()

    def __call__(self, *words: str, **variables: str) -> Ended:
        self._path.answer = self.account
        script = self._place / "deployment" / "build_and_deploy.sh"
        return self._path.run(script, *(words or WORDS), **variables)


@pytest.fixture
def deploy(place: Path, path: StandIns) -> Deployment:
    return Deployment(place, path)


def plain(ended: Ended) -> list[str]:
    """The command lines with what differs from run to run and tree to tree left out."""
    lines = [" ".join(words) for words in ended.commands]
    lines = [re.sub(r"(?<=[-/])[0-9a-f]{16}\b", "HASH", line) for line in lines]
    lines = [re.sub(r"/\S*/tmp\.\w+/", "TMP/", line) for line in lines]
    return [re.sub(r"\d{8}T\d{6}Z", "NOW", line).replace("aws --region eu-west-1 ", "aws ") for line in lines]


REGISTRY = "123456789012.dkr.ecr.eu-west-1.amazonaws.com"
STACKS = "aws cloudformation describe-stacks --stack-name atelier --query"
CHECKS = [
    "docker version --format {{.Server.Version}}",
    "docker buildx version",
    "aws sts get-caller-identity --query Account --output text",
    "aws ec2 describe-availability-zones --query AvailabilityZones[0].ZoneName --output text",
    "aws s3api get-bucket-location --bucket tools --query LocationConstraint --output text",
    f"{STACKS} Stacks[0].Parameters[?ParameterKey=='CertificateArn'].ParameterValue --output text",
    "aws ec2 describe-managed-prefix-lists --filters "
    "Name=prefix-list-name,Values=com.amazonaws.global.cloudfront.origin-facing "
    "--query PrefixLists[0].PrefixListId --output text",
    "aws service-quotas list-service-quotas --service-code sagemaker "
    "--query Quotas[?QuotaName=='ml.g4dn.xlarge for endpoint usage'].Value | [0] --output text",
]
HEADS = [
    "aws s3api head-object --bucket tools --key studio/HASH/cloudformation/main.yaml",
    "aws s3api head-object --bucket tools --key studio/lambda/gateway-HASH.zip",
    "aws s3api head-object --bucket tools --key studio/code/atelier-HASH.zip",
]
UPLOADS = [
    HEADS[0],
    "aws s3 cp cloudformation s3://tools/studio/HASH/cloudformation --recursive "
    "--exclude * --include *.yaml --exclude main.yaml --only-show-errors",
    "aws s3 cp cloudformation/main.yaml s3://tools/studio/HASH/cloudformation/main.yaml --only-show-errors",
    HEADS[1],
    "zip -q -X TMP/upload.zip -j deployment/lambda/gateway.py",
    "aws s3 cp TMP/upload.zip s3://tools/studio/lambda/gateway-HASH.zip --only-show-errors",
    HEADS[2],
    "zip -q -X TMP/upload.zip -r atelier portal webui workers extensions cloudformation deployment models "
    "pyproject.toml constraints.txt constraints-cuda.txt README.md LICENSE Makefile -x */__pycache__/*",
    "aws s3 cp TMP/upload.zip s3://tools/studio/code/atelier-HASH.zip --only-show-errors",
]
OWN = (
    "ParameterKey=AssetsBucket,ParameterValue=tools ParameterKey=AssetsPrefix,ParameterValue=studio/HASH "
    "ParameterKey=GatewayCodeKey,ParameterValue=studio/lambda/gateway-HASH.zip "
    "ParameterKey=Prefix,ParameterValue=atelier ParameterKey=CloudFrontPrefixList,ParameterValue=pl-4fa04526"
)
CHANGE = (
    "--stack-name atelier --template-url "
    "https://tools.s3.eu-west-1.amazonaws.com/studio/HASH/cloudformation/main.yaml "
    f"--capabilities CAPABILITY_NAMED_IAM --parameters {OWN}"
)
TAGS = "--tags Key=Project,Value=atelier"
STATUS = f"{STACKS} Stacks[0].StackStatus --output text"


def described(name: str) -> str:
    query = "--query imageDetails[0].[imageDigest,imageManifestMediaType] --output text"
    return f"aws ecr describe-images --repository-name atelier/{name} --image-ids imageTag=src-HASH {query}"


def of_each(built: bool) -> Iterator[str]:
    for name in NAMES:
        yield described(name)
        if built:
            yield f"docker image inspect {REGISTRY}/atelier/{name}:src-HASH"
            yield (
                "docker buildx build --provenance=false --sbom=false --output type=docker "
                f"--platform linux/amd64 --tag {REGISTRY}/atelier/{name}:src-HASH "
                f"--file deployment/images/{name}.Dockerfile ."
            )


def image(parameter: str, name: str) -> str:
    digest = f"sha256:atelier/{name}:src-HASH"
    return f"ParameterKey={parameter},ParameterValue={REGISTRY}/atelier/{name}@{digest}"


IMAGES = " ".join(
    image(*each)
    for each in (
        ("InferenceImage", "inference"),
        ("PortalImage", "portal"),
        ("TasksImage", "tasks"),
        ("WebUIImage", "webui"),
    )
)
UPDATE = [
    f"{STACKS} Stacks[0].Parameters[].ParameterKey --output text",
    f"aws cloudformation update-stack {CHANGE} {IMAGES} ParameterKey=AlarmEmail,UsePreviousValue=true {TAGS}",
]
REPORT = [
    f"{STACKS} Stacks[0].Outputs[?OutputKey=='{name}'].OutputValue --output text"
    for name in ("WebUIUrl", "WebPortalUrl", "AdminSecretArn")
] + ["aws s3 cp TMP/timings.json s3://tools/studio/deployments/NOW.json --only-show-errors"]


def test_the_first_run_makes_everything_in_this_order(deploy: Deployment) -> None:
    ended = deploy()
    assert ended.code == 0, ended.err
    pushes = [
        line
        for name in NAMES
        for line in (f"docker push --quiet {REGISTRY}/atelier/{name}:src-HASH", described(name))
    ]
    logged_in = {"aws ecr get-login-password"}
    logged_in |= {f"docker login --username AWS --password-stdin {REGISTRY} stdin=a password"}
    ran = plain(ended)
    assert logged_in <= set(ran)
    assert [line for line in ran if line not in logged_in] == [
        *CHECKS,
        *UPLOADS,
        STATUS,
        f"aws cloudformation create-stack {CHANGE} {TAGS}",
        *of_each(built=True),
        "aws cloudformation wait stack-create-complete --stack-name atelier",
        STATUS,
        *pushes,
        *UPDATE,
        "aws cloudformation wait stack-update-complete --stack-name atelier",
        STATUS,
        *REPORT,
    ]
    assert "WebUIUrl        <WebUIUrl>" in ended.out
    assert "WebPortalUrl    <WebPortalUrl>" in ended.out
    assert "Admin's secret  <AdminSecretArn>" in ended.out
    for stage in ("building images", "creating the stack", "updating the stack", "all"):
        assert re.search(rf"^ +\d+  {stage}$", ended.out, re.M), stage
    assert "a password" not in ended.out + ended.err


def test_a_second_run_finds_everything_there_and_makes_nothing(deploy: Deployment) -> None:
    assert deploy().code == 0
    nothing = "\nAn error occurred (ValidationError): No updates are to be performed.\n"
    deploy.account.replies["cloudformation update-stack"] = Reply(code=254, err=nothing)
    ended = deploy()
    assert ended.code == 0, ended.err
    assert plain(ended) == [*CHECKS, *HEADS, STATUS, *of_each(built=False), *UPDATE, STATUS, *REPORT]
    assert "The stack is as it should be." in ended.out
    assert ended.out.count("is in the registry already") == 5


@pytest.mark.long
def test_what_was_interrupted_goes_on_where_it_was(deploy: Deployment) -> None:
    deploy.account.replies[f"docker push --quiet {REGISTRY}/atelier/inference"] = Reply(
        code=1, err="broken pipe\n"
    )
    assert deploy().code != 0
    deploy.account.replies.clear()
    ended = deploy()
    assert ended.code == 0, ended.err
    assert ended.lines("docker", "buildx", "build") == [], "it is built already, here or in the registry"
    assert [words[-1].split("/")[-1].split(":")[0] for words in ended.lines("docker", "push")] == [
        "inference",
        "training",
        "tasks",
    ]
    assert not any("create-stack" in words for words in ended.commands)


@pytest.mark.long
def test_a_change_builds_what_it_concerns_and_nothing_else(deploy: Deployment, place: Path) -> None:
    assert deploy().code == 0
    (place / "webui" / "__init__.py").write_text("changed = True\n", encoding="utf-8")
    built = [words[-2] for words in deploy().lines("docker", "buildx", "build")]
    assert built == ["deployment/images/webui.Dockerfile"]
    (place / "pyproject.toml").write_text("changed = true\n", encoding="utf-8")
    assert len(deploy().lines("docker", "buildx", "build")) == 5
    with_arguments = deploy(BUILD_ARGS="BASE_WEIGHTS=yes").lines("docker", "buildx", "build")
    assert [words[words.index("--build-arg") :][:2] for words in with_arguments] == [
        ["--build-arg", "BASE_WEIGHTS=yes"]
    ] * 5


@pytest.mark.long
@pytest.mark.parametrize(
    ("status", "after", "waits"),
    [
        ("CREATE_IN_PROGRESS", ["CREATE_COMPLETE"], ["stack-create-complete"]),
        ("UPDATE_IN_PROGRESS", ["UPDATE_COMPLETE"], ["stack-update-complete"]),
        ("UPDATE_COMPLETE_CLEANUP_IN_PROGRESS", ["UPDATE_COMPLETE"], ["stack-update-complete"]),
        ("UPDATE_ROLLBACK_IN_PROGRESS", ["UPDATE_ROLLBACK_COMPLETE"], ["stack-rollback-complete"]),
        (
            "DELETE_IN_PROGRESS",
            ["NONE", "CREATE_COMPLETE"],
            ["stack-delete-complete", "stack-create-complete"],
        ),
        (
            "ROLLBACK_IN_PROGRESS",
            ["ROLLBACK_COMPLETE", "NONE", "CREATE_COMPLETE"],
            ["stack-create-complete", "stack-delete-complete", "stack-create-complete"],
        ),
    ],
)
def test_a_busy_or_failed_stack_is_waited_for_or_made_anew(
    deploy: Deployment, status: str, after: list[str], waits: list[str]
) -> None:
    deploy.account.status, deploy.account.after = status, [*after, "UPDATE_COMPLETE"]
    ended = deploy()
    assert ended.code == 0, ended.err
    waited = [words[5] for words in ended.commands if words[3:5] == ["cloudformation", "wait"]]
    assert waited == [*waits, "stack-update-complete"]
    if "ROLLBACK" in status:
        assert "The cluster has no room." in ended.out


@pytest.mark.long
@pytest.mark.parametrize(
    ("status", "words"),
    [
        ("UPDATE_ROLLBACK_FAILED", "aws --region eu-west-1 cloudformation continue-update-rollback"),
        ("DELETE_FAILED", "Remove it by deployment/teardown.sh"),
        ("CREATE_FAILED", "Remove it by deployment/teardown.sh"),
        ("ROLLBACK_FAILED", "Remove it by deployment/teardown.sh"),
    ],
)
def test_a_stack_that_cannot_go_on_is_told_with_the_way_out(
    deploy: Deployment, status: str, words: str
) -> None:
    deploy.account.status = status
    ended = deploy()
    assert ended.code == 1
    assert words in ended.err and "The cluster has no room." in ended.err
    assert not ended.lines("docker", "buildx", "build")


@pytest.mark.long
def test_a_creation_that_fails_says_what_failed_and_that_it_may_be_run_again(deploy: Deployment) -> None:
    deploy.account.after = ["ROLLBACK_COMPLETE"]
    ended = deploy()
    assert ended.code == 1
    assert "Database\tThe cluster has no room." in ended.err
    assert "The stack could not be created (it is ROLLBACK_COMPLETE)." in ended.err
    assert not ended.lines("docker", "push")


def test_everything_that_is_missing_is_said_at_once(deploy: Deployment) -> None:
    deploy.account.replies |= {
        "docker version": Reply(code=1, err="Cannot connect to the Docker daemon.\n"),
        "docker buildx": Reply(code=1, err="docker: 'buildx' is not a docker command.\n"),
        "s3api get-bucket-location": Reply("us-east-2\n"),
        "ec2 describe-availability-zones": Reply(code=254, err="\nOptInRequired\n"),
        "ec2 describe-managed-prefix-lists": Reply("None\n"),
        "service-quotas": Reply("0.0\n"),
    }
    ended = deploy()
    assert ended.code == 1
    for words in (
        "Docker does not answer. Start it, and see that you may use it. It said: Cannot connect",
        "Docker has no Buildx, which builds the images. Install its plugin",
        "The bucket tools is in us-east-2. Templates and code must be in eu-west-1",
        "The region eu-west-1 cannot be used by this account. It said: OptInRequired",
        "CloudFront's list of addresses (com.amazonaws.global.cloudfront.origin-facing) is not in eu-west-1",
    ):
        assert words in ended.err
    assert "may start no ml.g4dn.xlarge for endpoints" in ended.out, (
        "which is a note: the studio starts all the same"
    )
    assert ended.err.count("\n- ") == 5
    assert len(ended.commands) == len(CHECKS), "nothing was begun"


@pytest.mark.long
def test_missing_commands_credentials_and_buckets_are_told_apart(
    deploy: Deployment, place: Path, tmp_path: Path
) -> None:
    with stand_ins(tmp_path / "bin", programs=()) as bare:
        ended = bare.run(place / "deployment" / "build_and_deploy.sh", *WORDS)
    assert (ended.code, ended.err.count("is missing. Install it")) == (1, 3)
    deploy.account.replies["sts"] = Reply(code=253, err="\nUnable to locate credentials.\n")
    assert "AWS knows no credentials for eu-west-1" in deploy().err
    deploy.account.replies = {"s3api get-bucket-location": Reply(code=254, err="\nNoSuchBucket.\n")}
    assert "Make it: aws s3 mb s3://tools --region eu-west-1" in deploy().err


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ((), "Give exactly three arguments; these are 0."),
        (WORDS[:2], "Give exactly three arguments; these are 2."),
        ((*WORDS, "more"), "Give exactly three arguments; these are 4."),
        (("tools", *WORDS[1:]), "s3://BUCKET or s3://BUCKET/FOLDER, not 'tools'"),
        (("s3://tools/a b", *WORDS[1:]), "characters beyond letters"),
        ((WORDS[0], "Ireland", WORDS[2]), "a region of AWS, for example eu-west-1, not 'Ireland'"),
        ((*WORDS[:2], "comfyui"), "stable-diffusion-webui is all there is, not 'comfyui'"),
        (("--quick", *WORDS), "There is no option --quick."),
    ],
)
def test_arguments_that_cannot_be_meant_are_refused_with_the_usage(
    place: Path, path: StandIns, words: tuple[str, ...], said: str
) -> None:
    ended = path.run(place / "deployment" / "build_and_deploy.sh", *words)
    assert (ended.code, ended.commands) == (2, [])
    assert said in ended.err
    assert (
        "Usage: deployment/build_and_deploy.sh [--dry-run] S3URL AWS-REGION stable-diffusion-webui"
        in ended.err
    )


def test_variables_that_cannot_be_meant_are_refused_too(deploy: Deployment) -> None:
    assert "no parameter DomianName" in deploy(PARAMETERS="DomianName=x").err
    assert "which is no NAME=VALUE" in deploy(PARAMETERS="DomainName").err
    assert "PREFIX is 'My_Studio'" in deploy(PREFIX="My_Studio").err
    assert "at most 24 of a-z" in deploy(PREFIX="a" + "-b" * 12).err
    assert "DomainName and CertificateArn go together" in deploy(PARAMETERS="DomainName=a.example.com").err


@pytest.mark.long
def test_a_name_of_ones_own_needs_no_cloudfront_and_is_kept_afterwards(deploy: Deployment) -> None:
    ended = deploy(PARAMETERS=CERTIFIED, PREFIX="studio-2")
    assert ended.code == 0, ended.err
    [created] = [words for words in ended.commands if "create-stack" in words]
    assert created[created.index("--stack-name") + 1] == "studio-2"
    assert "ParameterKey=DomainName,ParameterValue=studio.example.com" in created
    assert not any("CloudFrontPrefixList" in word for word in created)
    assert f"{REGISTRY}/studio-2/portal:" in str(ended.lines("docker", "push"))
    deploy.account.replies[
        "cloudformation describe-stacks --stack-name studio-2 --query Stacks[0].Parameters[?ParameterKey=='C"
    ] = Reply("arn:aws:acm:eu-west-1:123456789012:certificate/1\n")
    again = deploy(PREFIX="studio-2")
    assert again.code == 0, again.err
    assert not any("describe-managed-prefix-lists" in words for words in again.commands)


def test_who_leaves_cloudfront_for_a_certificate_gives_its_list_up(deploy: Deployment) -> None:
    deploy.account.status = "UPDATE_COMPLETE"
    asked = "cloudformation describe-stacks --stack-name atelier --query Stacks[0].Parameters"
    deploy.account.replies |= {
        f"{asked}[?ParameterKey=='CloudFrontPrefixList']": Reply("pl-4fa04526\n"),
        f"{asked}[].ParameterKey": Reply("AlarmEmail\tCloudFrontPrefixList\tDomainName\tCertificateArn\n"),
    }
    ended = deploy(PARAMETERS=CERTIFIED)
    assert ended.code == 0, ended.err
    [update] = [words for words in ended.commands if "update-stack" in words]
    assert [word for word in update if "CloudFrontPrefixList" in word] == [
        "ParameterKey=CloudFrontPrefixList,ParameterValue="
    ]
    assert "ParameterKey=DomainName,ParameterValue=studio.example.com" in update


OCI = "application/vnd.oci.image.index.v1+json"


def test_an_image_in_a_form_that_sagemaker_refuses_is_told_and_never_deployed(deploy: Deployment) -> None:
    deploy.account.form = OCI
    for _ in range(2):
        ended = deploy()
        assert ended.code == 1
        assert f"as {OCI}, which SageMaker refuses" in ended.err and "docker image rm" in ended.err
        assert not any("update-stack" in words for words in ended.commands)
    deploy.account.form = Account.form
    assert deploy().code == 0


@pytest.mark.parametrize("kind", ["s3", "github"])
def test_the_pipeline_builds_the_same_form_and_looks_at_it(path: StandIns, tmp_path: Path, kind: str) -> None:
    given = LARGE if kind == "s3" else CLOUDFRONT
    spec = studio(given)["images"].resources()["Build"]["Properties"]["Source"]["BuildSpec"]
    phases = yaml.safe_load(spec)["phases"]
    script = tmp_path / "phases.sh"
    script.write_text(
        "\n".join(each for name in ("build", "post_build") for each in phases[name]["commands"])
    )
    variables = {"CODEBUILD_BUILD_SUCCEEDING": "1", "CODEBUILD_BUILD_NUMBER": "7", "REGISTRY": REGISTRY}
    variables |= {"PREFIX": "atelier", "AWS_REGION": "eu-west-1"}
    path.answer = lambda words: Reply(f"{Account.form}\n" if words[0] == "aws" else "")
    ended = path.run(script, **variables)
    assert ended.code == 0, ended.err
    builds = ended.lines("docker", "buildx", "build")
    assert len(builds) == len(ended.lines("docker", "push")) == len(NAMES)
    assert all(
        words[3:7] == ["--provenance=false", "--sbom=false", "--output", "type=docker"] for words in builds
    )
    path.answer = lambda words: Reply(f"{OCI}\n" if words[0] == "aws" else "")
    refused = path.run(script, **variables)
    assert (refused.code, len(refused.lines("docker", "push"))) == (1, 1)
    assert f"The registry holds portal as {OCI}, which SageMaker refuses." in refused.out


@pytest.mark.long
def test_china_has_its_own_addresses_and_needs_a_name(deploy: Deployment) -> None:
    words = ("s3://tools", "cn-north-1", WORDS[2])
    deploy.account.replies["s3api get-bucket-location"] = Reply("cn-north-1\n")
    refused = deploy(*words)
    assert refused.code == 1 and "In China nothing stands in front without a name of yours" in refused.err
    ended = deploy(*words, PARAMETERS=CERTIFIED)
    assert ended.code == 0, ended.err
    [created] = [each for each in ended.commands if "create-stack" in each]
    assert "https://tools.s3.cn-north-1.amazonaws.com.cn/atelier/" in str(created)
    assert "123456789012.dkr.ecr.cn-north-1.amazonaws.com.cn/atelier/portal" in str(
        ended.lines("docker", "push")
    )


def test_a_dry_run_prints_every_command_line_and_runs_none(
    deploy: Deployment, place: Path, tmp_path: Path
) -> None:
    ended = deploy("--dry-run", *WORDS)
    assert (ended.code, ended.commands) == (0, []), ended.err
    shown = [line[2:] for line in ended.out.splitlines() if line.startswith("+ ")]
    assert len(shown) >= 45
    for start in (
        "aws --region eu-west-1 cloudformation create-stack",
        "aws --region eu-west-1 cloudformation update-stack",
        "aws --region eu-west-1 ecr get-login-password",
        "docker login --username AWS --password-stdin",
        "docker buildx build --provenance=false --sbom=false --output type=docker --platform linux/amd64",
        "docker push",
        "zip -q",
    ):
        assert any(line.startswith(start) for line in shown), start
    with stand_ins(tmp_path / "bin", programs=()) as bare:
        without = bare.run(place / "deployment" / "build_and_deploy.sh", "--dry-run", *WORDS)
    assert without.code == 0, "it needs neither aws nor docker"


@pytest.mark.long
def test_every_image_of_this_repository_is_built_and_changes_with_what_it_copies(
    path: StandIns, tmp_path: Path
) -> None:
    script = ROOT / "deployment" / "build_and_deploy.sh"
    shown = path.run(script, "--dry-run", *WORDS).out
    assert re.findall(r"--file deployment/images/(\w+)\.Dockerfile", shown) == list(NAMES)
    assert "is left out" not in shown
    asking = tmp_path / "sources.sh"
    functions = re.findall(r"^(?:sources)\(\) \{.*?^\}", script.read_text(encoding="utf-8"), re.M | re.S)
    asking.write_text("\n".join([*functions, 'sources "$1"']), encoding="utf-8")
    for name in NAMES:
        file = ROOT / "deployment" / "images" / f"{name}.Dockerfile"
        copied = path.run(asking, str(file)).out.split()
        named = re.findall(r"^COPY (?!--from)(\S+) ", file.read_text(encoding="utf-8"), re.M)
        assert copied == named and copied, name
        assert all((ROOT / each).exists() for each in copied), name
