"""Children that never outlive their parent, with real processes."""

from __future__ import annotations

import os
import sys
import textwrap
from pathlib import Path

import psutil
import pytest

from atelier.processes import spawn
from tests.waiting import eventually

WAITER = """
import os, signal, threading
from atelier.processes import exit_with_parent
exit_with_parent()
open(os.environ["MARK"], "w").write(str(os.getpid()))
threading.Event().wait()
"""


@pytest.fixture
def mark(tmp_path: Path) -> Path:
    return tmp_path / "mark"


def test_closing_the_pipe_ends_the_child(mark: Path, repository: Path) -> None:
    child = spawn([sys.executable, "-c", WAITER], {"MARK": str(mark)}, cwd=repository)
    eventually(mark.exists)
    child.release()
    assert child.wait(60) != 0


def test_a_child_gets_the_given_environment_and_nothing_of_the_parents(
    mark: Path, repository: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "parents own")
    code = "import os; open(os.environ['MARK'], 'w').write('\\n'.join(sorted(os.environ)))"
    child = spawn([sys.executable, "-c", code], {"MARK": str(mark)}, cwd=repository)
    assert child.wait(60) == 0
    child.release()
    names = set(mark.read_text().split())
    assert "AWS_SECRET_ACCESS_KEY" not in names
    assert {"MARK", "ATELIER_PARENT_FD"} <= names


def test_a_grandchild_ends_when_the_process_between_is_killed(mark: Path, repository: Path) -> None:
    between = textwrap.dedent(f"""
        import os, sys, threading
        from atelier.processes import exit_with_parent, spawn
        exit_with_parent()
        spawn([sys.executable, "-c", {WAITER!r}], {{"MARK": os.environ["MARK"]}})
        threading.Event().wait()
    """)
    child = spawn([sys.executable, "-c", between], {"MARK": str(mark)}, cwd=repository)
    grandchild = int(eventually(lambda: mark.exists() and mark.read_text()))
    os.kill(child.pid, 9)
    child.wait(60)
    child.release()
    eventually(lambda: not psutil.pid_exists(grandchild), about="the grandchild still runs")
    assert not psutil.pid_exists(grandchild)


def test_stop_kills_a_child_that_does_not_listen(mark: Path, repository: Path) -> None:
    deaf = """
import os, signal, threading
signal.signal(signal.SIGTERM, signal.SIG_IGN)
open(os.environ["MARK"], "w").write("1")
threading.Event().wait()
"""
    child = spawn([sys.executable, "-c", deaf], {"MARK": str(mark)}, cwd=repository)
    eventually(mark.exists)
    assert child.stop(timeout=0.2) == -9


def test_output_goes_to_the_log(tmp_path: Path, repository: Path) -> None:
    log = tmp_path / "child.log"
    child = spawn([sys.executable, "-c", "print('hello')"], {}, log=log, cwd=repository)
    assert child.wait(60) == 0
    child.release()
    assert "hello" in log.read_text()
