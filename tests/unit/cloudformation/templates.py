"""Templates as data: read without AWS's own loader, and with their functions worked out for given parameters.

What a template says is then a plain value, in which names of its own resources stand as `<Name>` or
`<Name.Attribute>`, and outputs of nested stacks as what they are there. Functions, of the CloudFormation user
guide: Ref, GetAtt, Sub, Join, Select, Split, If, Cidr, GetAZs, Equals, Not, And, Or, Condition.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from functools import cache
from ipaddress import ip_network
from typing import Any

import yaml

from tests.architecture.source import ROOT

FOLDER = ROOT / "cloudformation"
NAMES = tuple(sorted(path.stem for path in FOLDER.glob("*.yaml")))
NESTED = "AWS::CloudFormation::Stack"
DROPPED = object()
"""The value of AWS::NoValue."""
ACCOUNT, REGION = "123456789012", "eu-west-1"
PSEUDO = {
    "AWS::AccountId": ACCOUNT,
    "AWS::Region": REGION,
    "AWS::Partition": "aws",
    "AWS::URLSuffix": "amazonaws.com",
    "AWS::StackName": "studio",
    "AWS::NoValue": DROPPED,
}
LARGE = {
    "AssetsBucket": "assets",
    "CertificateArn": f"arn:aws:acm:{REGION}:{ACCOUNT}:certificate/1",
    "DomainName": "studio.example.com",
    "HostedZoneId": "Z1",
    "Cognito": "yes",
    "PortalImage": "portal@sha256:1",
    "WebUIImage": "webui@sha256:1",
    "InferenceImage": "inference@sha256:1",
    "TasksImage": "tasks@sha256:1",
    "NatGateways": "2",
    "DatabaseReplica": "yes",
    "AlarmEmail": "somebody@example.com",
    "MonthlyBudget": "500",
    "ImportObjects": "arn:aws:s3:::theirs/*,arn:aws:s3:::others/models/*",
    "SourceType": "s3",
    "SourceBucket": "code",
    "SourceKey": "atelier.zip",
}
"""Parameters of main.yaml that make nearly everything there is; CLOUDFRONT makes the rest."""
CLOUDFRONT = {
    "AssetsBucket": "assets",
    "CloudFrontPrefixList": "pl-1",
    "PortalImage": "portal@sha256:1",
    "WebUIImage": "webui@sha256:1",
    "SourceType": "github",
    "SourceConnectionArn": f"arn:aws:codeconnections:{REGION}:{ACCOUNT}:connection/1",
    "SourceRepository": "https://github.com/example/atelier.git",
}
BARE = {"AssetsBucket": "assets", "CloudFrontPrefixList": "pl-1"}
"""What a first start gives, before there are images."""


class _Loader(yaml.SafeLoader):
    """YAML with CloudFormation's short tags."""


def _tagged(loader: _Loader, suffix: str, node: yaml.Node) -> dict[str, Any]:
    if isinstance(node, yaml.ScalarNode):
        value: Any = loader.construct_scalar(node)
    elif isinstance(node, yaml.SequenceNode):
        value = loader.construct_sequence(node, deep=True)
    else:
        raise ValueError(f"a mapping under !{suffix}")
    if suffix == "GetAtt" and isinstance(value, str):
        value = value.split(".", 1)
    return {suffix if suffix in ("Ref", "Condition") else f"Fn::{suffix}": value}


_Loader.add_multi_constructor("!", _tagged)


@cache
def template(name: str) -> dict[str, Any]:
    """A template by its file's stem."""
    found = yaml.load((FOLDER / f"{name}.yaml").read_text(encoding="utf-8"), _Loader)  # noqa: S506  a safe one
    return dict(found)


class Worked:
    """A template with `given` parameters. References to the resources named in `kept` stay as they are."""

    def __init__(
        self, name: str, given: Mapping[str, Any] | None = None, kept: frozenset[str] = frozenset()
    ) -> None:
        self.name = name
        self.template = template(name)
        self._kept = kept
        self._parameters: dict[str, Any] = {}
        self._nested: dict[str, Any] = {}
        for key, told in self.template.get("Parameters", {}).items():
            value = (given or {}).get(key, told.get("Default", f"<{key}>"))
            listed = told["Type"].startswith(("List<", "CommaDelimitedList")) and isinstance(value, str)
            self._parameters[key] = value.split(",") if listed else value

    def resources(self) -> dict[str, dict[str, Any]]:
        """Every resource that is made, its functions worked out."""
        return {
            name: self.value({key: value for key, value in each.items() if key != "Condition"})
            for name, each in self.template["Resources"].items()
            if self.holds(each.get("Condition"))
        }

    def outputs(self) -> dict[str, Any]:
        """Every output that is given."""
        return {
            name: self.value(each["Value"])
            for name, each in self.template.get("Outputs", {}).items()
            if self.holds(each.get("Condition"))
        }

    def holds(self, condition: str | None) -> bool:
        """Whether a condition of the template holds."""
        return condition is None or bool(self.value(self.template["Conditions"][condition]))

    def value(self, node: Any) -> Any:
        """A part of the template, worked out."""
        if isinstance(node, list):
            return [found for each in node if (found := self.value(each)) is not DROPPED]
        if not isinstance(node, dict):
            return node
        if len(node) == 1:
            ((key, told),) = node.items()
            if key == "Ref":
                return self._ref(told)
            if key == "Condition" and isinstance(told, str):
                return self.holds(told)
            if key.startswith("Fn::"):
                return self._function(key[4:], told)
        return {key: found for key, each in node.items() if (found := self.value(each)) is not DROPPED}

    def nested(self, name: str) -> Any:
        """A stack within this one: a Worked, or what stands in for it."""
        if name not in self._nested:
            told = self.value(self.template["Resources"][name]["Properties"])
            stem = told["TemplateURL"].rsplit("/", 1)[1].removesuffix(".yaml")
            self._nested[name] = Worked(stem, told.get("Parameters", {}))
        return self._nested[name]

    def stand_in(self, name: str, stack: Any) -> None:
        """Take a stack that was really made for a nested one: `stack.outputs()` are its outputs."""
        self._nested[name] = stack

    def _ref(self, name: str) -> Any:
        if name in PSEUDO:
            return PSEUDO[name]
        if name in self._parameters:
            return self._parameters[name]
        assert name in self.template["Resources"], f"{self.name}: there is no {name}"
        return {"Ref": name} if name in self._kept else f"<{name}>"

    def _function(self, name: str, told: Any) -> Any:
        if name == "If":
            return self.value(told[1] if self.holds(told[0]) else told[2])
        if name == "GetAtt":
            resource, attribute = told
            if attribute.startswith("Outputs."):
                return self.nested(resource).outputs()[attribute.removeprefix("Outputs.")]
            assert resource in self.template["Resources"], f"{self.name}: there is no {resource}"
            return {"Fn::GetAtt": told} if resource in self._kept else f"<{resource}.{attribute}>"
        if name == "Sub":
            return self._substituted(told)
        found = self.value(told)
        if name == "Join":
            return _joined(found[0], found[1])
        return _PLAIN[name](found)

    def _substituted(self, told: Any) -> Any:
        text, more = told if isinstance(told, list) else (told, {})
        pieces: list[Any] = []
        for number, piece in enumerate(re.split(r"\$\{([^}!]+)\}", text)):
            if number % 2 == 0:
                pieces.append(piece)
            elif piece in more:
                pieces.append(self.value(more[piece]))
            elif "." in piece:
                pieces.append(self._function("GetAtt", piece.split(".", 1)))
            else:
                pieces.append(self._ref(piece))
        return _joined("", pieces)


def _joined(glue: str, pieces: list[Any]) -> Any:
    if any(isinstance(each, dict) for each in pieces):
        return {"Fn::Join": [glue, pieces]}
    return glue.join(str(each) for each in pieces)


def _cidr(told: list[Any]) -> list[str]:
    block, count, bits = told
    subnets = ip_network(block).subnets(new_prefix=32 - int(bits))
    return [str(next(subnets)) for _ in range(int(count))]


_PLAIN: dict[str, Any] = {
    "Select": lambda told: told[1][int(told[0])],
    "Split": lambda told: told[1].split(told[0]),
    "GetAZs": lambda _: [f"{REGION}a", f"{REGION}b", f"{REGION}c"],
    "Cidr": _cidr,
    "Equals": lambda told: str(told[0]) == str(told[1]),
    "Not": lambda told: not told[0],
    "And": all,
    "Or": any,
}


def studio(given: Mapping[str, Any]) -> dict[str, Worked]:
    """Every stack that main.yaml makes of these parameters, by the stem of its template."""
    main = Worked("main", given)
    stacks = [main.nested(name) for name in main.resources()]
    return {"main": main} | {each.name: each for each in stacks}


def everything() -> Iterator[tuple[str, str, dict[str, Any]]]:
    """(template, name, resource) of every resource as it is written, whatever its condition."""
    for name in NAMES:
        for resource, told in template(name)["Resources"].items():
            yield name, resource, told
