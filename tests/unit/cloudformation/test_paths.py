"""Which paths go where: the load balancer's rules are the table of atelier/contract/routes.py."""

from __future__ import annotations

import importlib.util
from fnmatch import fnmatchcase
from typing import Any

import pytest

from atelier.contract.routes import PREFIXES, owner_of
from tests.architecture.source import ROOT
from tests.unit.cloudformation.templates import CLOUDFRONT, LARGE, studio

RULE = "AWS::ElasticLoadBalancingV2::ListenerRule"
MOST_VALUES = 5
"""Values of all conditions of a rule together (quotas of Application Load Balancers)."""


def rules(given: dict[str, str]) -> list[tuple[int, str, dict[str, Any]]]:
    """(priority, whose, properties) of the listener's rules, in their order."""
    made = studio(given)
    found = [
        (int(each["Properties"]["Priority"]), whose, each["Properties"])
        for whose in ("portal", "webui")
        for each in made[whose].resources().values()
        if each["Type"] == RULE
    ]
    return sorted(found, key=lambda rule: rule[0])


def patterns(rule: dict[str, Any]) -> list[str]:
    return [
        value
        for each in rule["Conditions"]
        if each["Field"] == "path-pattern"
        for value in each["PathPatternConfig"]["Values"]
    ]


@pytest.mark.parametrize("given", [LARGE, CLOUDFRONT], ids=["certificate", "cloudfront"])
def test_the_rules_are_the_table_of_routes(given: dict[str, str]) -> None:
    found = rules(given)
    portal = [pattern for _, whose, rule in found if whose == "portal" for pattern in patterns(rule)]
    expected = [each for prefix in PREFIXES for each in (prefix.path, f"{prefix.path}/*")]
    assert sorted(portal) == sorted(expected)
    assert [patterns(rule) for _, whose, rule in found if whose == "webui"] == [["/*"]]
    assert found[-1][1] == "webui", "its rule takes what is left"
    assert len({priority for priority, _, _ in found}) == len(found)


def test_every_path_goes_where_the_table_says() -> None:
    ordered = rules(CLOUDFRONT)
    paths = [
        "/",
        "/ui/healthz",
        "/gradio_api/run/predict",
        "/apis",
        "/portals/x",
        "/openapi.jsonx",
        "/a/api/b",
    ]
    paths += [
        path + end for path in (each.path for each in PREFIXES) for end in ("", "/", "/x", "/x/y", "x", "-x")
    ]
    for path in paths:
        first = next(
            whose
            for _, whose, rule in ordered
            if any(fnmatchcase(path, pattern) for pattern in patterns(rule))
        )
        assert first == owner_of(path), path


def test_behind_cloudfront_every_rule_asks_for_its_secret_header_and_no_rule_is_too_long() -> None:
    for _, _, rule in rules(CLOUDFRONT):
        headers = [each["HttpHeaderConfig"] for each in rule["Conditions"] if each["Field"] == "http-header"]
        assert [each["HttpHeaderName"] for each in headers] == ["X-Atelier-Origin"]
        assert all("resolve:secretsmanager" in value for each in headers for value in each["Values"])
        assert len(patterns(rule)) + sum(len(each["Values"]) for each in headers) <= MOST_VALUES
    sent = studio(CLOUDFRONT)["cloudfront"].resources()["Distribution"]["Properties"]["DistributionConfig"]
    assert [each["HeaderName"] for each in sent["Origins"][0]["OriginCustomHeaders"]] == ["X-Atelier-Origin"]
    for _, _, rule in rules(LARGE):
        assert [each["Field"] for each in rule["Conditions"]] == ["path-pattern"]


def test_only_cloudfront_or_everybody_over_tls_reaches_the_load_balancer() -> None:
    behind, own = (studio(given)["network"].resources() for given in (CLOUDFRONT, LARGE))
    (rule,) = behind["EntranceGroup"]["Properties"]["SecurityGroupIngress"]
    assert (rule["SourcePrefixListId"], rule["FromPort"]) == ("pl-1", 80)
    assert "CidrIp" not in rule
    assert {each["FromPort"] for each in own["EntranceGroup"]["Properties"]["SecurityGroupIngress"]} == {
        80,
        443,
    }
    entrance = studio(LARGE)["entrance"].resources()
    (action,) = entrance["PlainListener"]["Properties"]["DefaultActions"]
    assert (action["Type"], action["RedirectConfig"]["Protocol"]) == ("redirect", "HTTPS")
    (action,) = studio(CLOUDFRONT)["entrance"].resources()["PlainListener"]["Properties"]["DefaultActions"]
    assert action["FixedResponseConfig"]["StatusCode"] == "403"


def test_waiting_calls_are_answered_before_anything_in_front_gives_up() -> None:
    entrance = studio(LARGE)["entrance"].resources()["LoadBalancer"]["Properties"]["LoadBalancerAttributes"]
    idle = float({each["Key"]: each["Value"] for each in entrance}["idle_timeout.timeout_seconds"])
    config = studio(CLOUDFRONT)["cloudfront"].resources()["Distribution"]["Properties"]["DistributionConfig"]
    patience = float(config["Origins"][0]["CustomOriginConfig"]["OriginReadTimeout"])
    for given, limit in ((LARGE, idle), (CLOUDFRONT, patience)):
        containers = studio(given)["portal"].resources()["Definition"]["Properties"]["ContainerDefinitions"]
        told = {each["Name"]: each["Value"] for each in containers[1]["Environment"]}
        assert 0 < float(told["ATELIER_ANSWER_SECONDS"]) <= limit - 5
    assert idle >= 3600, "a synchronous call says nothing until its picture is done"


def test_pages_sit_on_one_process_and_health_checks_are_cheap() -> None:
    made = studio(LARGE)
    web, portal = (made[name].resources()["Targets"]["Properties"] for name in ("webui", "portal"))
    told = {each["Key"]: each["Value"] for each in web["TargetGroupAttributes"]}
    assert (told["stickiness.enabled"], told["stickiness.type"]) == ("true", "lb_cookie")
    assert portal["HealthCheckPath"] == "/healthz"
    assert web["HealthCheckPath"] == "/ui/healthz"


def test_the_gateway_lets_in_what_its_lambda_passes_on() -> None:
    specified = importlib.util.spec_from_file_location("gateway", ROOT / "deployment/lambda/gateway.py")
    assert specified is not None
    assert specified.loader is not None
    gateway = importlib.util.module_from_spec(specified)
    specified.loader.exec_module(gateway)
    made = studio(LARGE)["api"].resources()
    keys = [
        each["Properties"]["RouteKey"] for each in made.values() if each["Type"] == "AWS::ApiGatewayV2::Route"
    ]
    assert sorted(keys) == sorted(f"ANY {path}{end}" for path in gateway.PATHS for end in ("", "/{rest+}"))
    function = made["Function"]["Properties"]
    assert function["Handler"] == "gateway.handler"
    assert callable(gateway.handler)
    assert function["Environment"]["Variables"] == {"ATELIER_PORTAL_URL": "https://studio.example.com"}
    assert made["Integration"]["Properties"]["PayloadFormatVersion"] == "2.0"
    assert (
        gateway.SECONDS < function["Timeout"] <= made["Integration"]["Properties"]["TimeoutInMillis"] / 1000
    )
