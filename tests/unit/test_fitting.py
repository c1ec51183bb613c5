"""Pictures that no GPU of an endpoint can make are refused when they are sent, and go where they fit."""

from __future__ import annotations

from pathlib import Path

import pytest

from atelier.contract.errors import LimitExceeded
from atelier.contract.parts import ResolvedPart
from portal.adapters.aws.instances import offers
from portal.db.work import Model
from portal.domain.fitting import _WEIGHTS, GIB, _picture
from portal.services import audit
from portal.services.placing import placed
from portal.services.ports import EndpointSpec, EndpointState, EndpointStatus
from tests.jobs_studio import Studio

PART_PICTURE = {"width": 2048, "height": 2048}


@pytest.fixture
def studio(tmp_path: Path) -> Studio:
    """A studio with a small GPU, a large one, and a checkpoint of SDXL."""
    made = Studio(f"sqlite:///{tmp_path / 'a.db'}", tmp_path)
    made.fleet.offers = offers  # type: ignore[method-assign]
    made.work.acceptance._offers = offers
    made.work.endpoints.delete(audit.SYSTEM, "local")
    for name, kind in (("small", "ml.g4dn.xlarge"), ("large", "ml.g6e.xlarge")):
        made.work.endpoints.create(audit.SYSTEM, EndpointSpec(name, instance_type=kind))
    with made.database.session() as session:
        for row in session.query(Model):
            row.family = "sdxl"
    return made


def test_what_does_not_fit_is_refused_with_what_does(studio: Studio) -> None:
    ann = studio.user("ann")
    with pytest.raises(LimitExceeded, match=r"'small' \(ml.g4dn.xlarge\) has 16. The largest square .* 1"):
        studio.submit(ann, endpoint="small", **PART_PICTURE)
    assert studio.submit(ann, endpoint="small", width=1024, height=1024)
    assert studio.submit(ann, endpoint="large", **PART_PICTURE)


def test_what_may_go_anywhere_goes_where_it_fits(studio: Studio) -> None:
    ann = studio.user("ann")
    wanted = [studio.parts(studio.submit(ann, **size))[0].wanted_endpoint for size in (PART_PICTURE, {})]
    assert wanted == ["large", None]
    studio.fleet.statuses["large"] = EndpointStatus(EndpointState.FAILED, reason="broken")
    studio.work.endpoints.observe()
    with pytest.raises(LimitExceeded, match="'small'"):
        studio.submit(ann, **PART_PICTURE)


def test_where_no_memory_or_family_is_known_everything_fits(studio: Studio) -> None:
    ann = studio.user("ann")
    part = studio.parts(studio.submit(ann, endpoint="large", **PART_PICTURE))[0].resolved
    known = ResolvedPart.model_validate(part)
    other = known.model_copy(update={"checkpoint": known.checkpoint.model_copy(update={"family": None})})
    with studio.database.reading() as session:
        assert placed(session, ann.user_id, "small", [known], ()) == "small"
        assert placed(session, ann.user_id, "small", [other], offers()) == "small"
        with pytest.raises(LimitExceeded):
            placed(session, ann.user_id, "small", [known], offers())


def test_every_gpu_of_the_catalogue_makes_the_usual_sizes() -> None:
    for each in offers():
        for family, side in (("sd1", 1024), ("sd2", 1024), ("sdxl", 1024)):
            assert _WEIGHTS[family] * GIB + _picture(side, side) < 0.9 * each.gpu_memory, each.name
