"""What every test may lean on: places of its own, real databases, and guards against leaking and
calling out.
"""

from __future__ import annotations

import os

# Before anything imports torch or a hub client: one thread per process, and nothing looks for the internet.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("GRADIO_ANALYTICS_ENABLED", "False")

import gc
import ipaddress
import shutil
import socket
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Protocol

import hypothesis
import psutil
import pytest
from xdist.scheduler import LoadScopeScheduling

from tests.waiting import eventually as wait_until

ROOT = Path(__file__).resolve().parent.parent

# The same examples at every run: a test that fails today failed for everybody. A slow machine is no failure.
hypothesis.settings.register_profile(
    "atelier", derandomize=True, deadline=None, database=None, print_blob=True
)
hypothesis.settings.load_profile("atelier")


class SharingWhatIsDear(LoadScopeScheduling):
    """Gives a process together what shares something dear: all tests that drive a browser one Chromium and
    one studio, the end-to-end tests one portal with its worker, a module of the larger tests its own worker
    or engine. Those go first, the most tests before fewer; at the end there are small ones, each for the
    process that is free. (Marks do not reach the scheduler with this pytest.)
    """

    def _split_scope(self, nodeid: str) -> str:
        room = nodeid.split("/")[1]
        if room in ("browser", "e2e"):
            return room
        return nodeid.partition("::")[0] if room in ("integration", "security") else nodeid


def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> LoadScopeScheduling:
    """How the tests are shared among processes."""
    return SharingWhatIsDear(config, log)


# --- What is imported while tests are collected stays: the collector of garbage need not look at it, neither
# meanwhile (a quarter of the time) nor in every test.

gc.disable()


def pytest_collection_finish() -> None:
    """Collect garbage from now on, of what the tests make."""
    gc.freeze()
    gc.enable()


# --- Nothing beyond this machine is ever called.

_called_out: list[str] = []


def _is_local(host: object) -> bool:
    if host in (None, "", "localhost", b"localhost"):
        return True
    try:
        address = ipaddress.ip_address(host.decode() if isinstance(host, bytes) else str(host))
    except ValueError:
        return str(host) == socket.gethostname()
    return address.is_loopback or address.is_unspecified


def _refuse_the_network(event: str, arguments: tuple[Any, ...]) -> None:
    if event == "socket.connect":
        address = arguments[1]
        host = address[0] if isinstance(address, tuple) else None
    elif event == "socket.getaddrinfo":
        host = arguments[0]
    else:
        return
    if not _is_local(host):
        _called_out.append(f"{event} {host!r}")
        raise ConnectionRefusedError(f"tests reach nothing beyond loopback, and this asked for {host!r}")


sys.addaudithook(_refuse_the_network)


@pytest.fixture(autouse=True)
def network_guard() -> Iterator[None]:
    """Fails a test that tried to reach another machine, also where the code under test swallowed the
    refusal.
    """
    before = len(_called_out)
    yield
    reached = _called_out[before:]
    assert not reached, f"this test tried to reach {', '.join(reached)}"


# --- Nothing is left behind, and nothing of the caller's environment gets in.


@pytest.fixture(scope="session", autouse=True)
def process_guard() -> Iterator[None]:
    """Fails the session if a process started by a test still runs after everything was torn down."""
    own = psutil.Process()
    known = {child.pid for child in own.children(recursive=True)}
    yield
    left: list[psutil.Process] = []

    def none_left() -> bool:
        left[:] = [
            child for child in own.children(recursive=True) if child.pid not in known and _is_ours(child)
        ]
        return not left

    try:
        wait_until(none_left, within=30.0)
    except AssertionError:
        lines = [f"{child.pid} {' '.join(child.cmdline())[:200]}" for child in left if child.is_running()]
        pytest.fail("processes left behind by tests:\n" + "\n".join(lines))


def _is_ours(child: psutil.Process) -> bool:
    """Whether a leftover child counts: a zombie nobody waited for does, Python's own resource tracker does
    not.
    """
    try:
        return "multiprocessing.resource_tracker" not in " ".join(child.cmdline())
    except psutil.NoSuchProcess:
        return False


@pytest.fixture(autouse=True)
def clean_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """Takes the caller's ATELIER_* variables out of the environment: a test sets those it means."""
    for name in list(os.environ):
        if name.startswith("ATELIER_") and name != "ATELIER_GOLDEN":
            monkeypatch.delenv(name)


# --- Places.


@pytest.fixture(scope="session")
def repository() -> Path:
    """The root of the source tree."""
    return ROOT


@pytest.fixture
def data_dir(tmp_path: Path) -> Path:
    """An empty data directory of this test alone."""
    place = tmp_path / "data"
    place.mkdir()
    return place


@pytest.fixture(scope="session")
def golden() -> Path:
    """Pictures and answers recorded from the peer; ATELIER_GOLDEN says where they lie."""
    place = _golden_place()
    if not place.is_dir():
        pytest.skip("no recorded answers of the peer on this machine (ATELIER_GOLDEN)")
    return place


def _golden_place() -> Path:
    return Path(os.environ.get("ATELIER_GOLDEN") or ROOT.parent / "shared" / "data" / "golden")


@pytest.fixture(scope="session")
def checkpoints(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Two checkpoint files that draw differently: the recorded ones where they are, so that recorded pictures
    can be compared, else the demo checkpoint and one made from it.
    """
    recorded = [_golden_place() / "models" / name for name in ("oracle.safetensors", "oracle_b.safetensors")]
    if all(path.is_file() for path in recorded):
        return recorded
    from safetensors.numpy import load_file, save_file

    place = tmp_path_factory.mktemp("checkpoints")
    demo = Path(shutil.copy(ROOT / "models" / "atelier-demo.safetensors", place))
    other = place / "other-demo.safetensors"
    weights = load_file(demo)
    weights["model.diffusion_model.out.2.weight"] = weights["model.diffusion_model.out.2.weight"] / 2
    save_file(weights, other)
    return [demo, other]


@pytest.fixture
def free_port() -> int:
    """A TCP port on loopback that nobody used a moment ago."""
    return _free_port()


@pytest.fixture(scope="session")
def free_ports() -> Callable[[], int]:
    """A function that gives another free loopback port at each call."""
    return _free_port


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class Eventually(Protocol):
    """`tests.waiting.eventually`, for annotations."""

    def __call__(
        self, look: Callable[[], Any], *, within: float = ..., every: float = ..., about: str = ...
    ) -> Any: ...


@pytest.fixture(scope="session")
def eventually() -> Eventually:
    """Waits until a function gives something true, with a deadline and without sleeping."""
    return wait_until


# --- Databases: the same test body runs on both.


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[str]:
    """A real PostgreSQL of this test session; gives the SQLAlchemy URL of its maintenance database."""
    from tests.postgres import Server

    server = Server()
    try:
        yield server.url
    finally:
        server.remove()


@pytest.fixture
def postgres_url(postgres_server: str) -> Iterator[str]:
    """The SQLAlchemy URL of an empty PostgreSQL database of this test alone."""
    from tests.postgres import empty_database

    with empty_database(postgres_server) as url:
        yield url


@pytest.fixture(params=["sqlite", "postgres"])
def database_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """The SQLAlchemy URL of an empty database, once on SQLite and once on PostgreSQL."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path / 'atelier.db'}"
    return str(request.getfixturevalue("postgres_url"))


@pytest.fixture(scope="session")
def postgres_tables(postgres_server: str) -> Iterator[str]:
    """The SQLAlchemy URL of a PostgreSQL database with a studio's tables, for one test after the other."""
    import sqlalchemy

    from portal import app  # noqa: F401  # every table is known once this is imported
    from portal.db.base import Base, Database

    server = sqlalchemy.create_engine(postgres_server, isolation_level="AUTOCOMMIT")
    with server.connect() as connection:
        connection.execute(sqlalchemy.text("CREATE DATABASE studio"))
    server.dispose()
    url = sqlalchemy.make_url(postgres_server).set(database="studio").render_as_string(hide_password=False)
    database = Database(url)
    Base.metadata.create_all(database.engine)
    database.close()
    yield url


@pytest.fixture(params=["sqlite", "postgres"])
def studio_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """The SQLAlchemy URL of a database for a `Studio`, once on SQLite and once on PostgreSQL. There the
    tables stand already and are only emptied, which takes a tenth of making them: a test that changes tables
    or triggers takes `database_url`.
    """
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path / 'atelier.db'}"
    url = str(request.getfixturevalue("postgres_tables"))
    _empty(url)
    return url


@pytest.fixture(params=["sqlite", "postgres"])
def new_studio_url(request: pytest.FixtureRequest) -> Callable[[Path], str]:
    """What gives the URL of a database for a new `Studio` in a folder, for tests that make many one after the
    other: once on SQLite and once on PostgreSQL, as `studio_url`.
    """
    if request.param == "sqlite":
        return lambda folder: f"sqlite:///{folder / 'atelier.db'}"
    url = str(request.getfixturevalue("postgres_tables"))

    def emptied(_folder: Path) -> str:
        _empty(url)
        return url

    return emptied


@pytest.fixture(scope="module")
def aws() -> Iterator[Any]:
    """An AWS account played by moto on loopback (tests.moto_aws.Aws), with the bucket `studio`."""
    from tests import moto_aws

    with moto_aws.running() as account:
        account.bucket()
        yield account


def _empty(url: str) -> None:
    """Take every row away, past the triggers that keep the audit trail."""
    import sqlalchemy

    from portal.db.audit import FIRST_HEAD
    from portal.db.base import Base

    engine = sqlalchemy.create_engine(url)
    with engine.begin() as connection:
        connection.exec_driver_sql("SET session_replication_role = replica")
        for table in Base.metadata.tables.values():
            connection.execute(table.delete())
        connection.exec_driver_sql(FIRST_HEAD)
    engine.dispose()
