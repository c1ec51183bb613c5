"""The guards and waits the other tests lean on."""

from __future__ import annotations

import socket

import pytest
from sqlalchemy import create_engine, text

from tests import conftest
from tests.waiting import eventually


def test_waiting_gives_the_first_true_value() -> None:
    answers = iter([0, None, 7])
    assert eventually(lambda: next(answers), within=5.0) == 7


def test_waiting_ends_at_its_deadline_and_says_what_failed_last() -> None:
    def broken() -> bool:
        raise KeyError("door")

    with pytest.raises(AssertionError, match=r"no door.*KeyError"):
        eventually(broken, within=0.05, about="no door")


def test_calling_another_machine_is_refused() -> None:
    before = len(conftest._called_out)
    with socket.socket() as caller, pytest.raises(ConnectionRefusedError, match="beyond loopback"):
        caller.connect(("192.0.2.1", 80))
    assert conftest._called_out[before:] == ["socket.connect '192.0.2.1'"]
    del conftest._called_out[before:]


def test_every_test_gets_an_empty_database_of_its_own(database_url: str) -> None:
    engine = create_engine(database_url)
    with engine.begin() as connection:
        connection.execute(text("CREATE TABLE thing (n INTEGER)"))
        connection.execute(text("INSERT INTO thing VALUES (1)"))
        assert connection.execute(text("SELECT n FROM thing")).scalar() == 1
    engine.dispose()


def test_the_tables_of_another_test_are_not_there(database_url: str) -> None:
    engine = create_engine(database_url)
    with engine.begin() as connection:
        connection.execute(text("CREATE TABLE thing (n INTEGER)"))
        assert connection.execute(text("SELECT count(*) FROM thing")).scalar() == 0
    engine.dispose()
