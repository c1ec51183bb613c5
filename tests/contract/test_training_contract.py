"""What `train` and `serve` promise SageMaker. What trains is scripted here; tests/integration/test_images.py
runs the real recipe.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
import signal
from pathlib import Path
from typing import Any

import httpx
import pytest
from pydantic import BaseModel

from atelier.contract.errors import OutOfMemory, UnknownName
from atelier.storage.filesystem import FilesystemBlobStore
from tests.waiting import eventually
from workers.runtime.server import Gate, contract_app
from workers.training import job
from workers.training.demo.state import Clock
from workers.training.endpoint import Trainings
from workers.training.program import main
from workers.training.recipes import Recipe, parse


class Options(BaseModel, extra="forbid"):
    """Hyperparameters of the scripted recipe."""

    minutes: float = 10.0
    script: str = "done"


def scripted(options: Options, model: Path, state: Path, clock: Clock) -> bool:
    """Do what the hyperparameter `script` says."""
    state.mkdir(parents=True, exist_ok=True)
    (state / "state").write_text("kept")
    if options.script == "signal":
        os.kill(os.getpid(), signal.SIGTERM)
        eventually(clock.out_of_time)
        return False
    if options.script == "wait":
        eventually(clock.out_of_time)
        return False
    if options.script == "late":
        return False
    if options.script == "refuse":
        raise OutOfMemory("This GPU is too small. Take one with 24 GB.")
    if options.script == "break":
        raise ZeroDivisionError("division by zero " + "x" * 2000)
    model.mkdir(parents=True, exist_ok=True)
    (model / "made.safetensors").write_bytes(b"weights")
    return True


RECIPES = {"scripted": Recipe(Options, scripted)}


def a_job(root: Path, hyperparameters: Any, **files: Any) -> Path:
    config = root / "input" / "config"
    config.mkdir(parents=True)
    (config / "hyperparameters.json").write_text(json.dumps(hyperparameters))
    for name, content in files.items():
        (config / f"{name}.json").write_text(json.dumps(content))
    return root


def failure(root: Path) -> str:
    return (root / "output" / "failure").read_text()


def test_a_job_that_ends_leaves_its_model_and_no_failure(tmp_path: Path) -> None:
    channels = {"images": {"TrainingInputMode": "File"}}
    hosts = {"current_host": "algo-1", "hosts": ["algo-1"]}
    asked = {"recipe": '"scripted"', "minutes": "2.5", "script": "done"}
    root = a_job(tmp_path, asked, inputdataconfig=channels, resourceconfig=hosts)
    before = signal.getsignal(signal.SIGTERM)
    assert job.run(root, RECIPES) == 0
    assert (root / "model" / "made.safetensors").read_bytes() == b"weights"
    assert not (root / "output" / "failure").exists()
    assert signal.getsignal(signal.SIGTERM) == before


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        ({}, "The hyperparameter `recipe` is missing: it says what to train. There are: scripted."),
        ({"recipe": "scriptet"}, "There is no recipe named 'scriptet'. Did you mean 'scripted'?"),
        ({"recipe": "scripted", "minutes": "soon"}, "minutes: Input should be a valid number"),
        ({"recipe": "scripted", "epochs": "3"}, "epochs: Extra inputs are not permitted"),
        ({"recipe": "scripted", "script": "refuse"}, "This GPU is too small. Take one with 24 GB."),
        ({"recipe": "scripted", "script": "late"}, "did not end within its 10 minutes. Start it again"),
        ({"recipe": "scripted", "script": "break"}, "The training met a defect (ZeroDivisionError: division"),
        (["recipe"], "hyperparameters.json is no JSON object"),
    ],
)
def test_a_job_that_fails_says_why_in_its_failure_file(tmp_path: Path, asked: Any, said: str) -> None:
    root = a_job(tmp_path, asked)
    assert job.run(root, RECIPES) == 1
    assert said in failure(root)
    assert len(failure(root)) <= 1024


def test_a_job_without_a_description_or_with_two_instances_is_refused(tmp_path: Path) -> None:
    assert job.run(tmp_path / "empty", RECIPES) == 1
    assert "(SageMaker writes it): it says what to train" in failure(tmp_path / "empty")
    root = a_job(tmp_path / "two", {"recipe": "scripted"}, resourceconfig={"hosts": ["algo-1", "algo-2"]})
    assert job.run(root, RECIPES) == 1
    assert failure(root) == (
        "This job has 2 instances, and its recipe trains on one. Set InstanceCount to 1."
    )


def test_a_job_that_is_asked_to_stop_keeps_its_state_and_is_no_failure(tmp_path: Path) -> None:
    root = a_job(tmp_path, {"recipe": "scripted", "script": "signal"})
    assert job.run(root, RECIPES) == 128 + signal.SIGTERM
    assert (root / "checkpoints" / "state").read_text() == "kept"
    assert not (root / "output").exists()


def test_the_recipe_there_is_names_its_hyperparameters_as_its_command_line_does() -> None:
    run = parse({"recipe": "demo", "vae-steps": "3", "minutes": 5})
    assert (run.recipe, run.minutes, run.options.vae_steps) == ("demo", 5.0, 3)
    with pytest.raises(UnknownName, match="Known: 'demo'"):
        parse({"recipe": "lora"})


def invoke(trainings: Trainings, gate: Gate, body: Any) -> httpx.Response:
    app = contract_app(trainings, gate, token=None, max_body_bytes=1000)

    async def talk() -> httpx.Response:
        transport = httpx.ASGITransport(app=app)
        async with httpx.AsyncClient(transport=transport, base_url="http://worker") as client:
            return await client.post("/invocations", json=body)

    return asyncio.run(talk())


@pytest.fixture
def gate() -> Gate:
    opened = Gate(1)
    opened.open()
    return opened


def test_an_invocation_trains_and_says_where_the_model_lies(tmp_path: Path, gate: Gate) -> None:
    store = FilesystemBlobStore(tmp_path / "store")
    trainings = Trainings(store, "tuning", tmp_path / "runs", RECIPES)
    body = {"task": "training", "hyperparameters": {"recipe": "scripted"}}
    [made] = invoke(trainings, gate, body).raise_for_status().json()["models"]
    assert made["key"].startswith("training/tuning/") and made["file"] == "made.safetensors"
    assert store.get(made["key"]) == b"weights"
    assert (made["sha256"], made["size"]) == (hashlib.sha256(b"weights").hexdigest(), 7)
    assert list((tmp_path / "runs").iterdir()) == []


@pytest.mark.parametrize(
    ("body", "status", "said"),
    [
        ({"prompt": "a cat"}, 422, 'A training is asked for with {"task": "training"'),
        ({"task": "training", "hyperparameters": {"recipe": "none"}}, 422, "There is no recipe named"),
        (
            {"task": "training", "hyperparameters": {"recipe": "scripted", "script": "late"}},
            410,
            "did not end",
        ),
        ({"task": "training", "hyperparameters": {"recipe": "scripted", "script": "refuse"}}, 507, "24 GB"),
        ({"task": "training", "hyperparameters": {"recipe": "scripted", "script": "break"}}, 500, "defect"),
    ],
)
def test_an_invocation_that_fails_is_never_2xx(
    tmp_path: Path, gate: Gate, body: Any, status: int, said: str
) -> None:
    store = FilesystemBlobStore(tmp_path / "store")
    response = invoke(Trainings(store, "tuning", tmp_path / "runs", RECIPES), gate, body)
    assert response.status_code == status
    assert said in response.json()["error"]["message"]


def test_a_run_that_is_given_up_ends_and_may_be_asked_for_again(tmp_path: Path, gate: Gate) -> None:
    store = FilesystemBlobStore(tmp_path / "store")
    trainings = Trainings(store, "tuning", tmp_path / "runs", RECIPES)

    async def talk() -> tuple[httpx.Response, httpx.Response]:
        app = contract_app(trainings, gate, token=None, max_body_bytes=1000)
        transport = httpx.ASGITransport(app=app)
        body = {"task": "training", "hyperparameters": {"recipe": "scripted", "script": "wait"}}
        async with httpx.AsyncClient(transport=transport, base_url="http://worker") as client:
            first = asyncio.create_task(client.post("/invocations", json=body))
            await asyncio.to_thread(eventually, lambda: trainings.running)
            second = await client.post("/invocations", json=body)
            trainings.give_up()
            return await first, second

    first, second = asyncio.run(talk())
    assert (first.status_code, first.json()["error"]["code"]) == (503, "work_returned")
    assert (second.status_code, second.headers["retry-after"]) == (429, "1")


def test_the_program_knows_sagemakers_two_words_and_no_other(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["deploy"])
    assert ended.value.code == 2
    said = capsys.readouterr().err
    assert "train" in said and "serve" in said


def test_an_endpoint_without_a_store_says_which_settings_are_missing(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert main(["serve"]) == 2
    assert "store: Field required" in capsys.readouterr().err
