"""Addresses by which a server is made to ask another, in the spellings that slip through filters. Nothing of
ours asks any: they are refused where a picture or a name is meant.
"""

from __future__ import annotations

ADDRESSES: tuple[str, ...] = (
    # this machine, in every spelling
    "http://127.0.0.1/", "http://127.1/", "http://127.0.0.1.nip.io/", "http://localhost/", "http://LOCALHOST./",
    "http://0/", "http://0.0.0.0:8000/", "http://[::1]/", "http://[::]/", "http://[0:0:0:0:0:ffff:127.0.0.1]/",
    "http://[::ffff:7f00:1]/", "http://0x7f000001/", "http://0x7f.0.0.1/", "http://2130706433/",
    "http://017700000001/", "http://0177.0.0.1/", "http://127.000.000.001/", "http://[::127.0.0.1]/",
    "http://\u2460\u2461\u2466.0.0.1/", "http://\uff11\uff12\uff17.0.0.1/", "http://127\u30020\u30020\u30021/",
    # what clouds tell their machines
    "http://169.254.169.254/latest/meta-data/", "http://169.254.170.2/v2/credentials/", "http://[fd00:ec2::254]/",
    "http://metadata.google.internal/", "http://2852039166/", "http://0xa9fea9fe/", "http://[::ffff:a9fe:a9fe]/",
    "http://169.254.169.254.nip.io/",
    # other people's networks
    "http://10.0.0.1/", "http://172.16.0.1/", "http://192.168.0.1/", "http://100.64.0.1/", "http://198.18.0.1/",
    "http://[64:ff9b::7f00:1]/", "http://[fe80::1%25eth0]/", "http://[fc00::1]/", "http://224.0.0.1/",
    # somebody in front of, or something behind the name
    "http://huggingface.co@127.0.0.1/", "http://127.0.0.1#@huggingface.co/", "http://huggingface.co%00@127.0.0.1/",
    "http://127.0.0.1\\@huggingface.co/", "http://%31%32%37.0.0.1/", "http://huggingface.co:80@127.0.0.1:22/",
    # other ways than http
    "file:///etc/passwd", "file://127.0.0.1/etc/passwd", "ftp://127.0.0.1/",
    "gopher://127.0.0.1:6379/_INFO",
    "dict://127.0.0.1:11211/", "ldap://127.0.0.1/", "jar:http://127.0.0.1!/", "s3://bucket/key",
    "unix:///run/docker.sock",
    "//127.0.0.1/", "\\\\127.0.0.1\\share", "https:127.0.0.1", "data:text/plain,x",
)  # fmt: skip
