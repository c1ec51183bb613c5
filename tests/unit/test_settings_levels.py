"""How levels of settings add up, which lock counts, and what a locked request loses."""

from __future__ import annotations

from itertools import permutations

from atelier.contract.generation import Txt2ImgPayload
from atelier.resolve.locks import unlocked
from portal.domain.levels import Layer, Level, merged

STUDIO = Layer(Level.PLATFORM, "the studio", {"rho": 1.0, "tiling": True, "s_churn": 1.0})
USER = Layer(Level.USER, "yourself", {"rho": 9.0, "emphasis": "None"})


def team(name: str, values: dict[str, object], *locked: str) -> Layer:
    return Layer(Level.TEAM, f"the team {name}", values, frozenset(locked), name)


def test_the_nearest_level_counts_and_says_where_it_is() -> None:
    held = merged([USER, team("A", {"s_churn": 2.0}), STUDIO])
    assert {name: (each.value, each.level, each.title) for name, each in held.items()} == {
        "rho": (9.0, Level.USER, "yourself"),
        "tiling": (True, Level.PLATFORM, "the studio"),
        "s_churn": (2.0, Level.TEAM, "the team A"),
        "emphasis": ("None", Level.USER, "yourself"),
    }


def test_of_several_teams_the_first_by_name_counts_in_whatever_order_they_come() -> None:
    teams = [team("beta", {"rho": 2.0}), team("Alpha", {"rho": 3.0}), team("gamma", {"rho": 4.0, "n": 1})]
    for order in permutations([STUDIO, *teams]):
        held = merged(order)
        assert (held["rho"].value, held["rho"].title) == (3.0, "the team Alpha")
        assert held["n"].value == 1


def test_a_lock_of_a_later_team_beats_the_value_of_an_earlier_one() -> None:
    teams = [team("A", {"rho": 2.0}), team("C", {"rho": 4.0}, "rho"), team("B", {"rho": 3.0}, "rho")]
    for order in permutations([STUDIO, *teams, USER]):
        held = merged(order)["rho"]
        assert (held.value, held.locked_by) == (3.0, "the team B")


def test_a_lock_holds_the_value_from_below_where_its_layer_sets_none() -> None:
    locked = Layer(Level.PLATFORM, "the studio", {}, frozenset({"rho"}))
    held = merged([locked, team("A", {"rho": 2.0}, "rho"), USER])["rho"]
    assert (held.value, held.level, held.locked_by) == (None, Level.BUILT_IN, "the studio")
    held = merged([STUDIO, team("A", {}, "rho"), USER])["rho"]
    assert (held.value, held.level, held.locked_by) == (1.0, Level.PLATFORM, "the team A")


def test_a_request_loses_what_is_locked_and_is_told_where_that_changes_something() -> None:
    request = Txt2ImgPayload(
        override_settings={"rho": 5.0, "sigma_min": 0.1, "sd_vae": "None"}, s_churn=3, eta=0.5, tiling=True
    )
    locks = dict.fromkeys(("rho", "sd_vae", "s_churn", "eta_ddim", "tiling"), "the studio")
    left, ignored = unlocked(request, locks, {"sd_vae": "None", "tiling": True})
    assert left.override_settings == {"sigma_min": 0.1}
    assert (left.s_churn, left.eta, left.tiling) == (None, None, None)
    assert [(each.field, each.reason) for each in ignored] == [
        ("override_settings.rho", "the option 'rho' is locked by the studio"),
        ("eta", "the option 'eta_ddim' is locked by the studio"),
        ("s_churn", "the option 's_churn' is locked by the studio"),
    ]
    assert unlocked(request, {}, {}) == (request, [])
