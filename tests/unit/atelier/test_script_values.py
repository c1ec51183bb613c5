"""Values of an X/Y/Z axis as people write them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from atelier.contract.errors import InvalidRequest, LimitExceeded
from atelier.scripts import values


@pytest.mark.parametrize(
    ("written", "read"),
    [
        ("1,2,3", [1, 2, 3]),
        ("1-5", [1, 2, 3, 4, 5]),
        ("1-9(+4)", [1, 5, 9]),
        ("1-10 (+2)", [1, 3, 5, 7, 9]),
        ("10-1 (-3)", [10, 7, 4, 1]),
        ("1-10 [3]", [1, 5, 10]),
        ("-3--1, 7", [-3, -2, -1, 7]),
        ("-1", [-1]),
        ("18446744073709551000", [18446744073709551000]),
        ("4,,8", [4, 8]),
    ],
)
def test_whole_numbers_and_their_ranges(written: str, read: list[int]) -> None:
    assert values.integers(values.split(written)) == read


@pytest.mark.parametrize(
    ("written", "read"),
    [
        ("1,2.5", [1.0, 2.5]),
        ("0-1 (+0.25)", [0.0, 0.25, 0.5, 0.75, 1.0]),
        ("0-1 (+0.1)", [0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0]),
        ("1-2 (+0.3)", [1.0, 1.3, 1.6, 1.9]),
        ("1-2 [5]", [1.0, 1.25, 1.5, 1.75, 2.0]),
        ("1-3", [1.0, 2.0, 3.0]),
        ("1e-1", [0.1]),
    ],
)
def test_numbers_and_their_ranges_never_pass_the_end(written: str, read: list[float]) -> None:
    assert values.floats(values.split(written)) == read


@pytest.mark.parametrize("written", ["x", "1.5", "nan", "5-1", "1-2 (+0)", "1-", "1-2 (3", "9" * 5000])
def test_what_is_neither_a_whole_number_nor_a_range_is_refused(written: str) -> None:
    with pytest.raises(InvalidRequest):
        values.integers([written])


@pytest.mark.parametrize("written", ["1-99999999", "1-5 [99999]", "0-1 (+0.000001)"])
def test_a_range_of_more_values_than_a_job_has_pictures_is_refused_before_it_is_made(written: str) -> None:
    with pytest.raises(LimitExceeded, match="a job may have 1,000"):
        values.floats([written])


def test_quotes_keep_commas_in_and_a_joined_line_splits_into_the_same_values() -> None:
    assert values.split('red, "dark, green" ,  blue') == ["red", "dark, green", "blue"]
    picked = ["oracle.safetensors [cae32bd05b]", 'a "b", c', "d"]
    assert values.split(values.joined(picked)) == picked


@given(st.text(max_size=200))
def test_no_text_breaks_the_reader_of_numbers(text: str) -> None:
    for read in (values.integers, values.floats):
        try:
            assert all(number == number for number in read(values.split(text)))
        except InvalidRequest as error:
            assert error.message


@pytest.mark.parametrize("text", ["1-10 [0]", "1-2 [00]"])
def test_a_range_of_no_values_is_refused(text: str) -> None:
    for read in (values.integers, values.floats):
        with pytest.raises(InvalidRequest):
            read([text])


def test_many_ranges_together_are_bounded_too() -> None:
    with pytest.raises(LimitExceeded):
        values.integers(["1-1000"] * 2000)
