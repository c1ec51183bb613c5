"""Fargate: tasks that ECS is asked to run are run here, as child processes of the tasks image's program."""

from __future__ import annotations

import logging
import sys
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from atelier.processes import Child, spawn
from rehearsal.account import Account

PROGRAM = (sys.executable, "-m", "workers.tasks")
STOP_SECONDS = 30.0
"""Between SIGTERM and SIGKILL, as ECS has it."""
CONTAINER = "tasks"

log = logging.getLogger(__name__)


class TaskRunner:
    """Runs tasks until they end or are stopped, and says so in the account: their status, their log. `home`
    is where their folders are, `environment` what every one of them is given.
    """

    def __init__(
        self,
        account: Account,
        home: Path,
        environment: Mapping[str, str],
        program: Sequence[str] = PROGRAM,
    ) -> None:
        self._account = account
        self._home = home.resolve()
        self._environment = environment
        self._program = program
        self._children: dict[str, Child] = {}

    def started(self, said: Mapping[str, Any]) -> None:
        """ECS took tasks, with `said` as its answer."""
        for task in said.get("tasks", ()):
            number = str(task["taskArn"]).rpartition("/")[2]
            told = (task.get("overrides") or {}).get("containerOverrides") or [{}]
            folder = self._home / "tasks" / number
            folder.mkdir(parents=True)
            variables = {each["name"]: each["value"] for each in told[0].get("environment") or ()}
            child = spawn(
                [*self._program, *told[0].get("command", ())],
                {**variables, **self._environment, "HOME": str(folder), "PYTHONUNBUFFERED": "1"},
                log=folder / "task.log",
                cwd=folder,
            )
            self._children[number] = child
            follow = threading.Thread(
                target=self._follow, args=(number, child, folder / "task.log"), daemon=True
            )
            follow.start()

    def stopped(self, said: Mapping[str, Any]) -> None:
        """ECS was asked to stop a task."""
        number = str((said.get("task") or {}).get("taskArn", "")).rpartition("/")[2]
        child = self._children.get(number)
        if child is not None:
            threading.Thread(target=child.stop, args=(STOP_SECONDS,), daemon=True).start()

    def close(self) -> None:
        """Kill what still runs."""
        for child in list(self._children.values()):
            child.stop(0.2)

    def _follow(self, number: str, child: Child, file: Path) -> None:
        status = child.wait()
        child.release()
        lines = file.read_text(errors="replace").splitlines() if file.exists() else []
        log.info("the task %s ended with status %d", number, status)
        self._account.end_task(number, status, f"{CONTAINER}/{CONTAINER}/{number}", lines)
        self._children.pop(number, None)
