"""What the processes of the studio log: one line for each event, with the ids of what it belongs to.

`bound` and `note` keep the ids in a context variable, so that whoever logs need not know them; the formatters
write them, without secrets, and so that nothing somebody typed can begin a line of its own.
"""

from __future__ import annotations

import contextvars
import json
import logging
import os
import re
import secrets
import shutil
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, ParamSpec, TypeVar

from atelier.redaction import redacted

Form = Literal["json", "text"]
Ids = dict[str, str | int]

KEYS = ("request_id", "user_id", "job_id", "part_id", "attempt")
"""The ids that lines carry, in this order."""
LARGEST = 64 * 2**20
"""Bytes after which a log file is put aside."""

_QUIET = ("httpx", "httpcore", "alembic", "asyncio", "multipart", "PIL", "urllib3", "filelock")
"""Libraries with a line for each of their steps."""
_OWN = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName", "color_message"}
_SANE = re.compile(r"[A-Za-z0-9._-]{8,64}\Z")

_ids: contextvars.ContextVar[Ids | None] = contextvars.ContextVar("log ids", default=None)
_unsaid: contextvars.ContextVar[tuple[str, ...]] = contextvars.ContextVar("log unsaid", default=())

P = ParamSpec("P")
T = TypeVar("T")


@contextmanager
def bound(**ids: str | int) -> Iterator[None]:
    """Lines within carry these ids, and those around them."""
    token = _ids.set({**(_ids.get() or {}), **ids})
    try:
        yield
    finally:
        _ids.reset(token)


def note(**ids: str | int) -> None:
    """Let the rest of the innermost `bound` carry these too, also in tasks and threads it was handed to.
    Without one nothing happens.
    """
    known = _ids.get()
    if known is not None:
        known.update(ids)


@contextmanager
def unsaid(*texts: str) -> Iterator[None]:
    """Lines within hold none of these texts: somebody's prompt, wherever an error quotes it."""
    token = _unsaid.set((*_unsaid.get(), *texts))
    try:
        yield
    finally:
        _unsaid.reset(token)


def carried(work: Callable[P, T]) -> Callable[P, T]:
    """`work` as another thread is to run it: with the ids that hold here."""
    context = contextvars.copy_context()

    def run(*arguments: P.args, **named: P.kwargs) -> T:
        return context.copy().run(work, *arguments, **named)

    return run


def current() -> Ids:
    """The ids that a line written here would carry."""
    return dict(_ids.get() or {})


def request_id(given: str | None) -> str:
    """A request's id: the one that came with it where that is 8 to 64 letters, digits, dots, hyphens and
    underscores, else a new one of 16 hexadecimal digits.
    """
    return given if given and _SANE.match(given) else secrets.token_hex(8)


def configure(process: str, level: str, form: Form | None = None, file: Path | None = None) -> None:
    """Let every logger of this process write to standard error, or to `file`. `form` None: text where a
    person reads at a terminal, else JSON lines.
    """
    if file is not None:
        file.parent.mkdir(parents=True, exist_ok=True)
        handler: logging.Handler = logging.FileHandler(file, encoding="utf-8", delay=True)
    else:
        handler = logging.StreamHandler(sys.stderr)
    chosen = form or ("text" if file is None and sys.stderr.isatty() else "json")
    handler.setFormatter(JsonLines(process) if chosen == "json" else TextLines())
    logging.basicConfig(level=level.upper(), handlers=[handler], force=True)
    for name in _QUIET:
        logging.getLogger(name).setLevel(logging.WARNING)
    for name in ("uvicorn", "uvicorn.error", "uvicorn.access"):
        logging.getLogger(name).handlers.clear()
        logging.getLogger(name).propagate = True
    logging.captureWarnings(True)
    sys.excepthook = _uncaught
    threading.excepthook = _uncaught_in_thread


class JsonLines(logging.Formatter):
    """A record as one JSON object on one line, in ASCII: `at` (UTC), `level`, `process`, `logger`, `message`,
    the ids, whatever `extra` gave, and `error` with a traceback.
    """

    def __init__(self, process: str) -> None:
        super().__init__()
        self._process = process

    def format(self, record: logging.LogRecord) -> str:
        """See logging.Formatter."""
        line: dict[str, Any] = {
            "at": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "process": self._process,
            "logger": record.name,
            "message": _clean(record.getMessage()),
            **_ids_of(record),
        }
        for name, value in _extra(record).items():
            line.setdefault(name, _clean(value) if isinstance(value, str) else value)
        if record.exc_info:
            line["error"] = _clean(self.formatException(record.exc_info))
        return json.dumps(line, default=lambda value: _clean(str(value)))


class TextLines(logging.Formatter):
    """A record as people read it. Lines of a traceback begin with a bar, and what cannot be printed is
    escaped: a line that looks like ours is ours.
    """

    def format(self, record: logging.LogRecord) -> str:
        """See logging.Formatter."""
        at = datetime.fromtimestamp(record.created, UTC).strftime("%Y-%m-%d %H:%M:%S")
        told = {**_ids_of(record), **_extra(record)}
        ids = "".join(f" {name}={printable(str(value))}" for name, value in told.items())
        said = f"{at} {record.levelname} {record.name}: {printable(_clean(record.getMessage()))}{_clean(ids)}"
        if not record.exc_info:
            return said
        trace = _clean(self.formatException(record.exc_info)).splitlines()
        return "\n".join([said, *(f"  | {printable(each)}" for each in trace)])


def printable(text: str) -> str:
    """`text` on one line: line ends, control characters and what changes the direction of writing escaped."""
    return "".join(each if each.isprintable() else each.encode("unicode_escape").decode() for each in text)


def legible(line: str) -> str:
    """A line of a log for a person: a JSON line by its message and the end of its traceback, another one as
    it is.
    """
    try:
        said = json.loads(line)
        message, error = str(said["message"]), str(said.get("error", ""))
    except (ValueError, KeyError, TypeError, AttributeError):
        return line
    last = error.strip().splitlines()[-1:] if error else []
    return printable(": ".join([message, *last]))


def put_aside(log: Path, largest: int = LARGEST) -> bool:
    """Begin a log anew that another process appends to, once it is larger than that; what it holds goes to
    `<name>.1`. Returns whether it did. A line that is written in the moment between may be lost.
    """
    if not log.exists() or log.stat().st_size <= largest:
        return False
    shutil.copyfile(log, log.with_name(f"{log.name}.1"))
    os.truncate(log, 0)
    return True


def _clean(text: str) -> str:
    return redacted(text, _unsaid.get())


def _ids_of(record: logging.LogRecord) -> Ids:
    known = _ids.get() or {}
    given = {name: getattr(record, name) for name in KEYS if hasattr(record, name)}
    return {name: value for name in KEYS if (value := given.get(name, known.get(name))) is not None}


def _extra(record: logging.LogRecord) -> dict[str, Any]:
    return {name: value for name, value in vars(record).items() if name not in _OWN and name not in KEYS}


def _uncaught(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    if issubclass(kind, KeyboardInterrupt):
        sys.__excepthook__(kind, error, trace)
        return
    logging.getLogger("atelier").critical("the process ends", exc_info=(kind, error, trace))


def _uncaught_in_thread(failed: threading.ExceptHookArgs) -> None:
    if failed.exc_value is not None:
        name = failed.thread.name if failed.thread else "?"
        told = (failed.exc_type, failed.exc_value, failed.exc_traceback)
        logging.getLogger("atelier").critical("the thread %s ends", name, exc_info=told)
