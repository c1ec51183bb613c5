"""What a source of a model is, as people write it."""

from __future__ import annotations

import pytest
from hypothesis import given, strategies

from atelier.contract.errors import InvalidRequest
from atelier.modelsource import BucketSource, HubSource, WebSource, parse


@pytest.mark.parametrize(
    ("text", "source"),
    [
        ("hf:CompVis/stable-diffusion-v1-4", HubSource("CompVis/stable-diffusion-v1-4")),
        (" hf:a/b@fp16 ", HubSource("a/b", "fp16")),
        ("hf:a/b@v1.0/deep/er/c.safetensors", HubSource("a/b", "v1.0", "deep/er/c.safetensors")),
        ("https://huggingface.co/a/b", HubSource("a/b")),
        ("https://huggingface.co/a/b/", HubSource("a/b")),
        ("https://huggingface.co/a/b/tree/fp16", HubSource("a/b", "fp16")),
        ("https://huggingface.co/a/b/blob/main/c.ckpt", HubSource("a/b", "main", "c.ckpt")),
        ("https://huggingface.co/a/b/resolve/main/c/d.pt?download=true", HubSource("a/b", "main", "c/d.pt")),
        ("https://huggingface.co/datasets/b", WebSource("https://huggingface.co/datasets/b")),
        ("https://civitai.com/api/download/models/1?x=y", WebSource("https://civitai.com/api/download/models/1?x=y")),
        ("http://models.example/a%20b.ckpt", WebSource("http://models.example/a%20b.ckpt")),
        ("s3://our-models/lora/ink.safetensors", BucketSource("our-models", "lora/ink.safetensors")),
    ],
)  # fmt: skip
def test_a_source_is_read_as_it_is_written(text: str, source: object) -> None:
    found = parse(text)
    assert found == source
    assert parse(str(found)) == found


@pytest.mark.parametrize(
    "text",
    ["", "   ", "model.safetensors", "/etc/passwd", "file:///etc/passwd", "hf:", "hf:a", "hf:a/b/../c",
     "hf:a/../b", "hf:../a", "hf:a/b@", "hf:a/b//c", "hf:a/b/c\\d", "hf:a b/c", "s3://", "s3://b/k", "s3://bucket",
     "s3://bucket/", "s3://bucket/folder/", "s3://Bucket/k", "s3://bu..cket/k", "s3://bucket/k\x01y", "ftp://x/y",
     "https://huggingface.co/a/b/resolve/main/../../c", "x" * 1001],
)  # fmt: skip
def test_what_is_no_source_is_told_so(text: str) -> None:
    with pytest.raises(InvalidRequest):
        parse(text)


@pytest.mark.parametrize(
    "path",
    ["tree/refs%2Fpr%2F1", "blob/refs%2Fpr%2F1/c.pt", "resolve/a%40b/c.pt", "tree/%2e%2e", "tree/a%20b",
     "tree/a%00", "blob/main/c%E2%80%83"],
)  # fmt: skip
def test_a_page_whose_revision_would_be_read_as_another_is_refused(path: str) -> None:
    with pytest.raises(InvalidRequest, match="cannot be told apart"):
        parse(f"https://huggingface.co/o/r/{path}")


def test_a_file_is_called_by_its_last_word() -> None:
    names = (
        "hf:a/b/c/d.ckpt",
        "hf:a/b",
        "https://x.example/e/f%20g.pt?h",
        "s3://bucket/i/j.bin",
        "https://x.example",
    )
    assert [parse(each).filename for each in names] == ["d.ckpt", "b", "f g.pt", "j.bin", ""]


@given(
    strategies.text(max_size=80), strategies.sampled_from(["", "hf:", "s3://", "https://huggingface.co/a/b/"])
)
def test_any_text_is_a_source_or_none(text: str, beginning: str) -> None:
    try:
        found = parse(beginning + text)
    except InvalidRequest:
        return
    assert parse(str(found)) == found
    if isinstance(found, HubSource):
        assert ".." not in found.file.split("/") and not found.file.startswith("/")
