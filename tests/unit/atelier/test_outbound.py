"""Which addresses are fetched from: the whole catalogue of how a private machine can be spelled."""

from __future__ import annotations

import ipaddress

import pytest
from hypothesis import given, strategies

from atelier.contract.errors import InvalidRequest, NotPermitted
from atelier.outbound import Machine, Reach, parse

PRIVATE = [
    "127.0.0.1", "127.255.255.254", "10.0.0.1", "172.16.0.1", "172.31.255.255", "192.168.1.1", "0.0.0.0",
    "0.1.2.3", "169.254.169.254", "169.254.170.2", "169.254.0.1", "100.64.0.1", "100.100.100.200",
    "168.63.129.16", "192.0.0.192", "192.0.2.1", "198.18.0.1", "198.51.100.7", "203.0.113.9", "224.0.0.1",
    "239.255.255.250", "240.0.0.1", "255.255.255.255", "192.88.99.1",
    "::", "::1", "::7f00:1", "::ffff:127.0.0.1", "::ffff:10.0.0.1", "::ffff:169.254.169.254",
    "::ffff:8.8.8.8", "::ffff:0:127.0.0.1", "64:ff9b::7f00:1", "64:ff9b::a9fe:a9fe", "64:ff9b:1::1",
    "2002:7f00:1::", "2002:a9fe:a9fe::", "2001::1", "2001:db8::1", "fe80::1", "fec0::1", "fc00::1",
    "fd00::1", "fd00:ec2::254", "fd20:ce::254", "ff02::1", "100::1", "3fff::1", "5f00::1",
]  # fmt: skip
PUBLIC = ["8.8.8.8", "1.1.1.1", "172.15.255.255", "172.32.0.1", "192.167.255.255", "100.63.255.255",
          "100.128.0.0", "11.0.0.0", "126.255.255.255", "128.0.0.0", "169.253.255.255", "169.255.0.0",
          "2606:4700::1", "2a00:1450::1"]  # fmt: skip
ODD = [
    "http://2130706433/", "http://0x7f000001/", "http://017700000001/", "http://0177.0.0.1/",
    "http://0x7f.0.0.1/", "http://127.1/", "http://127.0.1/", "http://127.0.0.01/", "http://0/",
    "http://127.0.0.1./", "http://localhost./", "http://example.com./x", "http://1.1.1.1.1/",
    "http://[::1%25lo]/", "http://[fe80::1%25eth0]/", "http://[::ffff:127.0.0.1/", "http://[127.0.0.1]/",
    "http://user@127.0.0.1/", "http://user:secret@example.com/", "http://@example.com/",
    "http://example.com@169.254.169.254/", "http://%31%32%37.0.0.1/", "http://127.0.0.1%2f@example.com/",
    "http://example.com\\@127.0.0.1/", "http:\\\\127.0.0.1\\x", "http://exa mple.com/", "http://\t127.0.0.1/",
    "http://example.com\r\nHost: x/", "http://①②⑦.⓪.⓪.①/", "http://ｌｏｃａｌｈｏｓｔ/", "http://127。0。0。1/",
    "http://example.com:99999/", "http://example.com:port/", "http://example.com:-1/", "http:///path", "http://",
    "ftp://example.com/x", "file:///etc/passwd", "gopher://127.0.0.1:6379/_x", "dict://127.0.0.1/",
    "data:text/plain,x", "javascript:alert(1)", "jar:http://x!/", "//example.com/x", "example.com/x",
    "https://-bad.example/", "https://a..b/", "https://" + "a" * 300 + ".com/", "https://x/" + "y" * 5000,
]  # fmt: skip
MIRROR = Reach(networks=(ipaddress.ip_network("10.1.0.0/16"),))


def machine(text: str) -> Machine:
    return ipaddress.ip_address(text)


@pytest.mark.parametrize("spelled", ODD)
def test_an_odd_spelling_is_no_address(spelled: str) -> None:
    with pytest.raises(InvalidRequest):
        parse(spelled)


@pytest.mark.parametrize("private", PRIVATE)
def test_a_machine_that_is_not_public_is_not_reached_by_number_or_by_name(private: str) -> None:
    name = f"[{private}]" if ":" in private else private
    for url in (f"https://{name}/model.safetensors", "https://models.example/model.safetensors"):
        with pytest.raises(NotPermitted) as refused:
            Reach().check_machines(parse(url), [machine(private)])
        assert private not in refused.value.message or private in url, "what a name leads to is not told"


@pytest.mark.parametrize("private", PRIVATE)
def test_one_private_machine_among_public_ones_closes_a_name(private: str) -> None:
    for order in ([private, "8.8.8.8"], ["8.8.8.8", private]):
        with pytest.raises(NotPermitted):
            Reach().check_machines(parse("https://models.example/x"), [machine(each) for each in order])


@pytest.mark.parametrize("public", PUBLIC)
def test_the_public_neighbours_are_reached(public: str) -> None:
    name = f"[{public}]" if ":" in public else public
    Reach().check_machines(parse(f"https://{name}/x"), [machine(public)])


@pytest.mark.parametrize("url", ["https://models.example:8443/x", "http://models.example:22/x",
                                 "http://models.example:443/x", "https://models.example:80/x"])  # fmt: skip
def test_a_public_host_is_asked_at_its_schemes_own_port_alone(url: str) -> None:
    with pytest.raises(NotPermitted, match="Port"):
        Reach().check_machines(parse(url), [machine("8.8.8.8")])


def test_a_mirror_is_reached_where_the_deployment_allows_its_network_and_nothing_beside_it() -> None:
    address = parse("http://mirror.internal:8081/x")
    MIRROR.check_machines(address, [machine("10.1.2.3")])
    for others in (["10.2.0.1"], ["10.1.2.3", "10.2.0.1"], ["10.1.2.3", "8.8.8.8"], []):
        with pytest.raises(NotPermitted):
            MIRROR.check_machines(address, [machine(each) for each in others])


@pytest.mark.parametrize(
    "metadata",
    [
        "169.254.169.254",
        "169.254.170.2",
        "fd00:ec2::254",
        "168.63.129.16",
        "100.100.100.200",
        "fe80::1",
        "0.0.0.0",
        "::ffff:169.254.169.254",
    ],
)
def test_no_deployment_can_open_a_metadata_service(metadata: str) -> None:
    everything = Reach(networks=(ipaddress.ip_network("0.0.0.0/0"), ipaddress.ip_network("::/0")))
    with pytest.raises(NotPermitted):
        everything.check_machines(parse("http://anything.example/x"), [machine(metadata)])


def test_hosts_are_named_whole_or_by_what_they_stand_below() -> None:
    reach = Reach(("huggingface.co", "*.hf.co"))
    for host in ("huggingface.co", "cdn-lfs.hf.co", "HuggingFace.co"):
        reach.check_name(parse(f"https://{host}/x"))
    for host in ("hf.co", "evilhf.co", "huggingface.co.evil.example", "evil-huggingface.co", "127.0.0.1"):
        with pytest.raises(NotPermitted, match="ATELIER_IMPORT_HOSTS"):
            reach.check_name(parse(f"https://{host}/x"))


def test_an_address_is_read_in_one_way() -> None:
    found = parse("HTTPS://Models.Example/a%20b/c?d=e&f#part")
    assert (found.scheme, found.host, found.port, found.target) == (
        "https", "models.example", 443, "/a%20b/c?d=e&f",
    )  # fmt: skip
    assert (str(parse("http://[2A00:1450::1]:8080")), found.shown) == (
        "http://[2a00:1450::1]:8080/",
        "https://models.example/a%20b/c",
    )


@given(strategies.ip_addresses())
def test_whatever_is_reached_is_a_public_machine(found: Machine) -> None:
    try:
        Reach().check_machines(parse("https://models.example/x"), [found])
    except NotPermitted:
        return
    assert found.is_global and not (found.is_private or found.is_multicast or found.is_link_local)
    assert getattr(found, "ipv4_mapped", None) is None and getattr(found, "sixtofour", None) is None


@given(strategies.text(max_size=60))
def test_no_text_makes_the_reader_of_addresses_fail_otherwise(text: str) -> None:
    for url in (text, f"https://{text}", f"https://{text}/x", f"http://models.example:{text}/"):
        try:
            found = parse(url)
        except InvalidRequest:
            continue
        assert found.host and str(parse(str(found))) == str(found)
