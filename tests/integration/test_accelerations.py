"""What makes a worker faster: the list for whoever looks after it, and the choice a worker starts with."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator

import pytest
import torch

from workers.engine import attention
from workers.inference import accelerations
from workers.inference.server import choose_attention, main


@pytest.fixture
def restored() -> Iterator[None]:
    before = attention.chosen()
    yield
    attention.use(before)


def test_the_list_names_every_choice_with_its_reason_and_needs_no_other_setting(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in [each for each in os.environ if each.startswith("ATELIER_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("ATELIER_ATTENTION", "flash")
    monkeypatch.setenv("ATELIER_DEVICE", "cpu")
    assert main(["accelerations"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert "device: cpu, float32" in lines
    assert "attention: sdpa (ATELIER_ATTENTION=flash)" in lines
    told = {line.split()[0]: line for line in lines if line.startswith("  ")}
    assert set(told) == {*attention.NAMES, *accelerations.OTHERS}
    for name in ("flash", "cudnn", "efficient", "xformers"):
        assert "needs a CUDA device" in told[name]
    assert "can be had; means sdpa here" in told["auto"]
    assert "training" in told["deepspeed"]


def test_a_choice_that_does_not_exist_is_refused_by_name(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("ATELIER_ATTENTION", "telepathy")
    assert main(["accelerations"]) == 2
    assert "attention" in capsys.readouterr().err


@pytest.mark.usefixtures("restored")
def test_a_worker_starts_with_what_can_be_had_and_logs_the_reason(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO):
        choose_attention("xformers", "cpu", "float32")
    assert attention.chosen().name == "sdpa"
    assert "it needs a CUDA device" in caplog.text
    assert "attention: sdpa (asked for: xformers)" in caplog.text


@pytest.mark.usefixtures("restored")
def test_a_worker_computes_with_the_kernel_that_was_asked_for() -> None:
    tensors = torch.randn(3, 1, 2, 5, 8, generator=torch.Generator().manual_seed(0)).unbind(0)
    by_default = attention.attend(*tensors)
    choose_attention("math", "cpu", "float32")
    assert attention.chosen().name == "math"
    with attention.chosen().scope():
        assert torch.allclose(attention.attend(*tensors), by_default, atol=1e-6)
