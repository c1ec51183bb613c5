"""The plain request's own rules, with values of every type everywhere."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from atelier.contract import plain
from atelier.contract.errors import AtelierError, InvalidRequest, LimitExceeded

FIELDS = [*plain.PlainRequest.model_fields, "inputs", "parameters", "nonsense"]
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(FIELDS), inner, max_size=3),
    max_leaves=6,
)


@settings(max_examples=150)
@given(st.dictionaries(st.sampled_from(FIELDS), VALUES, max_size=5))
def test_any_json_is_understood_or_refused_with_a_4xx(body: dict[str, Any]) -> None:
    read = json.loads(json.dumps(body))
    try:
        request = plain.parse(read)
    except AtelierError as error:
        assert 400 <= error.http_status < 500
        assert error.message
    else:
        assert len(request.prompts) == len(request.negatives)
        assert 1 <= request.pictures <= plain.MOST_PICTURES


@pytest.mark.parametrize("value", [True, "512", 512.5, 1e999, -(10**400), [512], {}])
def test_a_size_that_is_no_whole_number_is_refused_naming_the_field(value: object) -> None:
    with pytest.raises(InvalidRequest, match="'height'"):
        plain.parse({"prompt": "a", "height": value})


@pytest.mark.parametrize(
    "body",
    [
        {"prompt": ["a"] * 11, "num_images_per_prompt": 10},
        {"prompt": "a", "num_images_per_prompt": 0},
        {"prompt": "a", "width": 4096},
    ],
)
def test_numbers_beyond_what_one_request_may_ask_are_refused(body: dict[str, Any]) -> None:
    with pytest.raises(LimitExceeded):
        plain.parse(body)


def test_a_member_given_inside_and_outside_is_refused() -> None:
    with pytest.raises(InvalidRequest, match="`seed` is given twice"):
        plain.parse({"inputs": "a", "parameters": {"seed": 1}, "seed": 2})
