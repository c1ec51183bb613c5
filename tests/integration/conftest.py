"""What several of the larger tests lean on."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.sites import Site


@pytest.fixture(scope="module")
def sites() -> Iterator[tuple[Site, Site]]:
    """Two web sites on loopback that models come from."""
    made = Site(), Site()
    yield made
    for each in made:
        each.close()
