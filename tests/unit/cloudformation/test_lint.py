"""What cfn-lint says of the templates: nothing, in every kind of region."""

from __future__ import annotations

from cfnlint.config import ConfigMixIn
from cfnlint.runner import Runner

from tests.architecture.source import ROOT

TEMPLATES = sorted((ROOT / "cloudformation").glob("*.yaml"))
PLAIN = ["us-east-1", "eu-central-1", "cn-north-1", "cn-northwest-1", "us-gov-west-1", "ap-southeast-3"]
"""Ordinary regions, China, GovCloud, and one that came late."""
OPTIONAL = {"cognito.yaml", "cloudfront.yaml", "budget.yaml"}
"""Stacks that are left out where a region lacks what they make: CloudFormation refuses a template that names
a type it does not know, whatever its conditions say.
"""


def test_no_template_has_a_finding_in_any_kind_of_region() -> None:
    assert len(TEMPLATES) >= 15
    needed = [str(path) for path in TEMPLATES if path.name not in OPTIONAL]
    optional = [str(path) for path in TEMPLATES if path.name in OPTIONAL]
    assert _findings(needed, PLAIN) == []
    assert _findings(optional, ["us-east-1", "eu-central-1"]) == []


def _findings(templates: list[str], regions: list[str]) -> list[str]:
    found = Runner(ConfigMixIn([], templates=templates, regions=regions, include_checks=["I"])).run()
    return [f"{each.filename}:{each.linenumber} {each.rule.id} {each.message}" for each in found]
