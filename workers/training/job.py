"""SageMaker's training job contract, below /opt/ml: what is asked for lies in input, the model goes to model,
what a later run goes on from to checkpoints, and why it failed to output/failure.
"""

from __future__ import annotations

import json
import logging
import signal
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from atelier.contract.errors import AtelierError, InvalidRequest
from workers.training.demo.state import Clock
from workers.training.recipes import RECIPES, Recipe, parse

ROOT = Path("/opt/ml")
LONGEST_REASON = 1024
"""Characters of the failure file that SageMaker shows."""
DONE, FAILED, STOPPED = 0, 1, 128 + signal.SIGTERM
"""Exit statuses: all is trained; it is not, and the failure file says why; stopped, and the state is kept."""

log = logging.getLogger(__name__)


def run(root: Path = ROOT, recipes: Mapping[str, Recipe] = RECIPES) -> int:
    """Run the job that is described below `root`. SIGTERM lets it write down its state and end."""
    asked_to_stop = False

    def stop(*_: object) -> None:
        nonlocal asked_to_stop
        asked_to_stop = True
        clock.stop()

    clock = Clock(0.0)
    before = signal.signal(signal.SIGTERM, stop)
    try:
        wanted = parse(hyperparameters(root), recipes)
        check_alone(root)
        clock.minutes = wanted.minutes
        log.info("training %s: %s", wanted.recipe, wanted.options)
        if wanted.into(root / "model", root / "checkpoints", clock):
            return DONE
        if asked_to_stop:
            log.info("stopped as asked; %s has what the next run goes on from", root / "checkpoints")
            return STOPPED
        return failed(root, out_of_time(wanted.minutes, str(root / "checkpoints")))
    except AtelierError as error:
        return failed(root, error.message)
    except Exception as error:  # whatever it is, SageMaker shows its sentence
        log.exception("the training failed")
        return failed(root, f"The training met a defect ({type(error).__name__}: {error}). See its log.")
    finally:
        signal.signal(signal.SIGTERM, before)


def out_of_time(minutes: float, kept: str) -> str:
    """Why a run ended before it was done, and what to do."""
    return (
        f"The training did not end within its {minutes:g} minutes. Start it again with the same checkpoints "
        f"({kept}) to go on, or give it more `minutes`."
    )


def hyperparameters(root: Path) -> dict[str, Any]:
    """The job's hyperparameters. Values are text, and those that the SageMaker SDK made JSON of are read as
    such. Raises InvalidRequest.
    """
    given = _json(root / "input" / "config" / "hyperparameters.json")
    if given is None:
        raise InvalidRequest(
            f"There is no {root}/input/config/hyperparameters.json (SageMaker writes it): "
            "it says what to train."
        )
    return {name: _unquoted(value) for name, value in given.items()}


def check_alone(root: Path) -> None:
    """Refuse what no recipe can do yet; name what is not used. Raises InvalidRequest."""
    hosts = (_json(root / "input" / "config" / "resourceconfig.json") or {}).get("hosts", [])
    if len(hosts) > 1:
        raise InvalidRequest(
            f"This job has {len(hosts)} instances, and its recipe trains on one. Set InstanceCount to 1."
        )
    channels = _json(root / "input" / "config" / "inputdataconfig.json") or {}
    if channels:
        log.warning("the recipe draws its own pictures: the channels %s are not used", ", ".join(channels))


def failed(root: Path, reason: str) -> int:
    """Write down why, for people; FAILED."""
    log.error("%s", reason)
    place = root / "output" / "failure"
    try:
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_text(reason[:LONGEST_REASON], encoding="utf-8")
    except OSError as error:
        log.error("%s could not be written: %s", place, error.strerror)
    return FAILED


def _json(path: Path) -> dict[str, Any] | None:
    """The JSON object in a file, None where there is no file. Raises InvalidRequest."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        raise InvalidRequest(f"{path} cannot be read: {error}.") from error
    if not isinstance(found, dict):
        raise InvalidRequest(f"{path} is no JSON object.")
    return found


def _unquoted(value: Any) -> Any:
    if isinstance(value, str) and value.startswith('"'):
        try:
            return json.loads(value)
        except ValueError:
            return value
    return value
