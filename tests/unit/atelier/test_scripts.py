"""Scripts make cells: which requests an X/Y/Z plot, a prompt matrix and a list of prompts stand for."""

from __future__ import annotations

import itertools
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from atelier.contract.errors import InvalidRequest, LimitExceeded, UnknownName
from atelier.contract.generation import Txt2ImgPayload
from atelier.contract.grids import GridPlan
from atelier.contract.models import Catalogue
from atelier.resolve import Resolution, resolve_txt2img
from atelier.scripts import Expansion, expand, plain
from atelier.scripts.axes import AXES, find_axis
from atelier.scripts.catalogue import SCRIPTS, arguments, script_info
from tests.unit.atelier.test_infotext import CATALOGUE

GOLDEN = ("script-matrix-start", "xyz-seed", "xyz-cfg-steps", "xyz-sr", "xyz-3d", "xyz-varyx")
BASE: dict[str, Any] = {"prompt": "a red circle on blue", "seed": 10, "width": 64, "height": 64, "steps": 8}


def expanded(script: str, arguments: Any, catalogue: Catalogue = CATALOGUE, **request: Any) -> Expansion:
    drawn = itertools.count(1000)
    payload = Txt2ImgPayload(**{**BASE, **request}, script_name=script, script_args=arguments)
    found = expand(payload, catalogue, lambda: next(drawn), request.get("override_settings") or {})
    assert found is not None
    return found


def xyz(**arguments: Any) -> Expansion:
    request = arguments.pop("request", {})
    return expanded("X/Y/Z plot", arguments, **request)


def fields(expansion: Expansion, *names: str) -> list[tuple[Any, ...]]:
    return [tuple(getattr(cell.payload, name) for name in names) for cell in expansion.cells]


def case(golden: Path, name: str) -> dict[str, Any]:
    return dict(json.loads((golden / "cases" / f"{name}.json").read_text()))


def recorded(golden: Path, name: str) -> tuple[Resolution, dict[str, Any]]:
    recorded = case(golden, name)
    return resolve_txt2img(recorded["payload"], CATALOGUE, answering=True), recorded["info"]


@pytest.mark.parametrize("name", GOLDEN)
def test_the_parts_have_the_prompts_and_seeds_the_peer_answered(golden: Path, name: str) -> None:
    resolution, info = recorded(golden, name)
    first = len(resolution.arrangement.repeated)
    assert [part.prompt for part in resolution.parts] == info["all_prompts"][first:]
    assert [seed for part in resolution.parts for seed in part.seeds] == info["all_seeds"][first:]


def test_the_peers_lists_of_arguments_are_ours(golden: Path) -> None:
    listed = json.loads((golden / "lists" / "script-info.json").read_text())
    served = {script.script for script in SCRIPTS}
    assert script_info() == [each for each in listed if each["name"] in served and not each["is_img2img"]]
    assert all(argument.label for script in SCRIPTS for argument in arguments(script))


def test_a_request_without_a_script_is_not_expanded() -> None:
    assert expand(Txt2ImgPayload(), CATALOGUE) is None
    assert expand(Txt2ImgPayload(script_name="None"), CATALOGUE) is None


def test_x_is_the_fastest_axis_and_z_the_slowest_in_the_answer() -> None:
    made = xyz(
        x_type="Steps", x_values="1,2", y_type="CFG Scale", y_values="3,4", z_type="Clip skip", z_values="1,2"
    )
    assert fields(made, "steps", "cfg_scale")[:4] == [(1, 3.0), (2, 3.0), (1, 4.0), (2, 4.0)]
    skips = [(cell.payload.override_settings or {})["CLIP_stop_at_last_layers"] for cell in made.cells]
    assert skips == [1] * 4 + [2] * 4
    assert made.cells[5].place == "Steps: 2, CFG Scale: 3.0, Clip skip: 2"


def test_what_is_costly_to_change_is_dispatched_outermost_wherever_it_stands() -> None:
    titles = ["a", "b"]
    made = xyz(x_type="Checkpoint name", x_values="a,b", y_type="Steps", y_values="1,2")
    order = [made.cells[i].payload for i in made.order]
    assert [(p.override_settings or {})["sd_model_checkpoint"] for p in order] == [
        *titles[:1] * 2,
        *titles[1:] * 2,
    ]
    assert [payload.steps for payload in order] == [1, 2, 1, 2]
    assert sorted(made.order) == [0, 1, 2, 3]


def test_by_name_by_label_and_by_place_mean_the_same_plot() -> None:
    typed = xyz(x_type="CFG Scale", x_values="3,6", vary_seeds_x=True)
    labelled = xyz(**{"X type": "cfg scale", "X values": "3,6", "Vary seeds for X": True})
    placed = expanded("x/y/z plot", [6, "3,6", [], 0, "", [], 0, "", [], True, False, False, False, True])
    assert typed == labelled == placed
    assert fields(typed, "cfg_scale", "seed") == [(3.0, 10), (6.0, 11)]


def test_picked_values_count_for_an_axis_with_a_menu_unless_text_is_asked_for() -> None:
    picked = {"x_type": "Sampler", "x_values": "Euler", "x_choices": ["Heun", "LMS"]}
    assert fields(xyz(**picked), "sampler_name") == [("Heun",), ("LMS",)]
    assert fields(xyz(**picked, text_inputs=True), "sampler_name") == [("Euler",)]
    assert fields(xyz(x_type="Sampler", x_values="Euler"), "sampler_name") == [("Euler",)]


@pytest.mark.parametrize(
    ("axis", "written", "field", "value"),
    [
        ("Var. seed", "5", "subseed", 5),
        ("Var. strength", "0.5", "subseed_strength", 0.5),
        ("Hires steps", "7", "hr_second_pass_steps", 7),
        ("Hires sampler", "Euler", "hr_sampler_name", "Euler"),
        ("Negative Guidance minimum sigma", "1", "s_min_uncond", 1.0),
        ("Sigma Churn", "1", "s_churn", 1.0),
        ("Sigma min", "0.1", "s_tmin", 0.1),
        ("Sigma max", "9", "s_tmax", 9.0),
        ("Sigma noise", "1.01", "s_noise", 1.01),
        ("Schedule type", "Karras", "scheduler", "Karras"),
        ("Eta", "0.5", "eta", 0.5),
        ("Denoising", "0.4", "denoising_strength", 0.4),
        ("Hires upscaler", "Latent", "hr_upscaler", "Latent"),
        ("Refiner checkpoint", "oracle_b", "refiner_checkpoint", "oracle_b"),
        ("Refiner checkpoint", "None", "refiner_checkpoint", None),
        ("Refiner switch at", "0.7", "refiner_switch_at", 0.7),
        ("Size", "96 x 128", "height", 128),
        ("Styles", '"one,two"', "styles", ["three", "one", "two"]),
    ],
)
def test_an_axis_changes_its_field(axis: str, written: str, field: str, value: Any) -> None:
    made = xyz(x_type=axis, x_values=written, request={"styles": ["three"]})
    assert fields(made, field) == [(value,)]
    assert made.cells[0].payload.given(field) or value is None


@pytest.mark.parametrize(
    ("axis", "written", "option", "value"),
    [
        ("VAE", "None", "sd_vae", "None"),
        ("Schedule min sigma", "0.1", "sigma_min", 0.1),
        ("Schedule max sigma", "9", "sigma_max", 9.0),
        ("Schedule rho", "5", "rho", 5.0),
        ("Beta schedule alpha", "0.4", "beta_dist_alpha", 0.4),
        ("Beta schedule beta", "0.4", "beta_dist_beta", 0.4),
        ("UniPC Order", "20", "uni_pc_order", 7),
        ("Always discard next-to-last sigma", "True", "always_discard_next_to_last_sigma", True),
        ("SGM noise multiplier", "false", "sgm_noise_multiplier", False),
        ("RNG source", "NV", "randn_source", "NV"),
    ],
)
def test_an_axis_over_an_option_overrides_it_in_its_cell_alone(
    axis: str, written: str, option: str, value: Any
) -> None:
    made = xyz(x_type=axis, x_values=written, request={"override_settings": {"emphasis": "None"}})
    assert made.cells[0].payload.override_settings == {"emphasis": "None", option: value}


def test_search_and_replace_works_on_both_prompts_and_says_when_it_finds_nothing() -> None:
    both = {"prompt": "red cat", "negative_prompt": "red dog"}
    made = xyz(x_type="Prompt S/R", x_values='red,"dark, green"', request=both)
    assert fields(made, "prompt", "negative_prompt")[1] == ("dark, green cat", "dark, green dog")
    with pytest.raises(InvalidRequest, match="did not find 'pink'"):
        xyz(x_type="Prompt S/R", x_values="pink,blue", request=both)


def test_prompt_order_puts_the_words_in_every_order_in_their_places() -> None:
    made = xyz(x_type="Prompt order", x_values="a,b,c", request={"prompt": "x a, c and b."})
    assert [prompt for (prompt,) in fields(made, "prompt")] == [
        "x a, b and c.", "x a, c and b.", "x b, a and c.", "x b, c and a.", "x c, a and b.", "x c, b and a.",
    ]  # fmt: skip
    with pytest.raises(InvalidRequest, match="did not find 'zebra'"):
        xyz(x_type="Prompt order", x_values="red,zebra")


def test_seeds_left_to_chance_are_drawn_once_for_all_cells_or_for_each() -> None:
    steps = {"x_type": "Steps", "x_values": "1-3", "request": {"seed": -1}}
    assert fields(xyz(**steps), "seed") == [(1000,)] * 3
    assert fields(xyz(**steps, no_fixed_seeds=True), "seed") == [(1000,), (1001,), (1002,)]


def test_an_axis_of_seeds_draws_minus_one_and_says_what_it_drew() -> None:
    made = xyz(x_type="Seed", x_values="5,-1")
    assert fields(made, "seed") == [(5,), (1000,)]
    assert made.arrangement.grids[0].extra["Fixed X Values"] == "5, 1000"
    kept = xyz(x_type="Seed", x_values="5,-1", no_fixed_seeds=True)
    assert "Fixed X Values" not in kept.arrangement.grids[0].extra


def test_axes_that_vary_seeds_count_like_digits() -> None:
    made = xyz(
        x_type="Steps",
        x_values="1,2",
        y_type="CFG Scale",
        y_values="1,2,3",
        vary_seeds_x=True,
        vary_seeds_y=True,
    )
    assert [seed for (seed,) in fields(made, "seed")] == [10, 11, 12, 13, 14, 15]
    only_y = xyz(x_type="Steps", x_values="1,2", y_type="CFG Scale", y_values="1,2", vary_seeds_y=True)
    assert [seed for (seed,) in fields(only_y, "seed")] == [10, 10, 11, 11]


def test_a_cell_makes_one_picture_unless_its_own_grid_is_shown() -> None:
    batch = {"batch_size": 2, "n_iter": 2}
    alone = xyz(x_type="Steps", x_values="1,2", request=batch)
    assert [cell.pictures for cell in alone.cells] == [1, 1]
    assert "save_images" in alone.warnings[0]
    kept = xyz(x_type="Steps", x_values="1,2", request=batch | {"save_images": True})
    assert [cell.pictures for cell in kept.cells] == [4, 4]
    sub = kept.arrangement.grids[0].tiles[0]
    assert isinstance(sub, GridPlan)
    assert [tile.pictures() for tile in sub.tiles if isinstance(tile, GridPlan)] == [
        (0, 1, 2, 3),
        (4, 5, 6, 7),
    ]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"x_type": "Sterps", "x_values": "1"}, "Did you mean 'Steps'"),
        ({"x_type": 99, "x_values": "1"}, "no axis"),
        ({"x_type": -1, "x_values": "1"}, "no axis"),
        ({"x_type": "Steps", "x_values": ""}, "The X axis .Steps. has no values"),
        ({"x_type": "Steps", "x_values": "many"}, "'many' is neither a whole number"),
        ({"x_type": "Size", "x_values": "64"}, "'64' is no size"),
        ({"x_type": "SGM noise multiplier", "x_values": "maybe"}, "neither True nor False"),
        ({"x_type": "Face restore", "x_values": "GFPGAN"}, "face restoration is not served"),
        ({"x_type": "FP8 mode", "x_values": "Enable"}, "FP8"),
        ({"x_type": "[Hypertile] VAE Enabled", "x_values": "True"}, "hypertile"),
        ({"x_type": "Token merging ratio", "x_values": "0.5"}, "token merging"),
        (
            {"x_type": "Steps", "x_values": "1-40", "y_type": "CFG Scale", "y_values": "1-40"},
            "1,600 pictures",
        ),
        ({"x_type": "Prompt order", "x_values": "a,b,c,d,e,f,g"}, "5,040 pictures"),
        ({"margins": 3}, "'margins'"),
        ({"margin": 501}, "'Grid margins"),
    ],
)
def test_a_plot_that_cannot_be_made_says_why(arguments: dict[str, Any], said: str) -> None:
    with pytest.raises(InvalidRequest, match=said):
        xyz(**arguments)


def test_a_grid_of_more_than_200_megapixels_is_refused_with_the_size() -> None:
    large = {"width": 2048, "height": 2048}
    with pytest.raises(LimitExceeded, match="419 megapixels; at most 200"):
        xyz(x_type="Steps", x_values="1-100", request=large)
    with pytest.raises(LimitExceeded, match="megapixels"):
        xyz(x_type="Steps", x_values="1-20", request=large | {"enable_hr": True})


def test_every_axis_of_the_peer_is_served_or_refused_with_a_reason() -> None:
    assert len(AXES) == 51
    for place, axis in enumerate(AXES):
        if axis.refused:
            with pytest.raises(InvalidRequest, match=r"cannot be used: \w"):
                find_axis(place)
        else:
            assert find_axis(place) is find_axis(axis.label.upper())


def test_an_unknown_script_and_too_many_arguments_are_refused() -> None:
    with pytest.raises(UnknownName):
        expanded("nope", [])
    with pytest.raises(InvalidRequest, match="takes 5 arguments, not 6"):
        expanded("prompt matrix", [False] * 2 + ["positive", "comma", 0, 1])


def test_a_prompt_matrix_has_every_subset_in_the_order_of_its_bits() -> None:
    made = expanded("prompt matrix", [], prompt="a cat| red |in a hat")
    assert [prompt for (prompt,) in fields(made, "prompt")] == [
        "a cat", "a cat, red", "a cat, in a hat", "a cat, red, in a hat",
    ]  # fmt: skip
    assert {seed for (seed,) in fields(made, "seed")} == {10}
    [plan] = made.arrangement.grids
    assert (plan.rows, len(plan.above), len(plan.beside)) == (2, 2, 2)
    assert [text.active for texts in plan.above for text in texts] == [False, True]


def test_a_prompt_matrix_may_vary_the_negative_prompt() -> None:
    made = expanded(
        "prompt matrix", {"prompt_type": "negative", "joining": "space"}, negative_prompt="blurry|ugly"
    )
    assert fields(made, "prompt", "negative_prompt")[1] == (BASE["prompt"], "blurry ugly")


def test_a_prompt_matrix_without_bars_is_one_picture_and_one_of_fifty_parts_is_refused() -> None:
    assert len(expanded("prompt matrix", []).cells) == 1
    with pytest.raises(LimitExceeded, match="50 variable parts"):
        expanded("prompt matrix", [], prompt="|".join("x" * 51))


def from_file(text: str, *switches: Any, **request: Any) -> Expansion:
    given = [*switches, *[False, False, "start"][len(switches) :], text]
    return expanded("prompts from file or textbox", given, **request)


def test_every_line_that_is_not_empty_is_a_prompt_put_before_or_after_the_requests_own() -> None:
    text = "a cat\n\n  a dog  \n"
    assert fields(from_file(text, prompt="art"), "prompt") == [("a cat art",), ("a dog art",)]
    at_end = from_file(text, False, False, "end", prompt="art")
    assert fields(at_end, "prompt") == [("art a cat",), ("art a dog",)]
    assert from_file(text).arrangement.grids == ()


def test_a_line_of_options_sets_them_all() -> None:
    line = (
        '--prompt "a big cat" --negative_prompt dog and bird --seed 7 --subseed 8 --subseed_strength 0.5 '
        "--steps 12 --cfg_scale 4.5 --width 128 --height 192 --sampler_name 'Euler a' "
        "--batch_size 2 --n_iter 3 "
        '--styles "one, two" --sd_model oracle_b --restore_faces false --tiling true '
        "--seed_resize_from_w 64 --seed_resize_from_h 32 --do_not_save_grid true"
    )
    made = from_file(line, prompt="")
    cell = made.cells[0].payload
    assert (cell.prompt, cell.negative_prompt, cell.seed, cell.subseed) == ("a big cat", "dog and bird", 7, 8)
    assert (cell.steps, cell.cfg_scale, cell.width, cell.height) == (12, 4.5, 128, 192)
    assert (cell.sampler_name, cell.batch_size, cell.n_iter) == ("Euler a", 2, 3)
    assert (cell.styles, cell.tiling, cell.restore_faces) == (["one", "two"], True, False)
    assert (cell.seed_resize_from_w, cell.seed_resize_from_h) == (64, 32)
    assert cell.override_settings == {"sd_model_checkpoint": "oracle_b"}
    assert made.warnings == ("Line 1: --do_not_save_grid had no effect: this script makes no grid.",)


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ('--prompt "open', "Line 2 cannot be read: No closing quotation"),
        ("--promt x", "Line 2: There is no option of a line named 'promt'.*Did you mean 'prompt'"),
        ("--steps many", "Line 2 cannot be read: --steps 'many' cannot be used"),
        ("--prompt", "--prompt has no value"),
        ("word --steps 3", "'word' belongs to no option"),
        ("--tiling perhaps", "true or false"),
        ("--sampler_index 99", "numbered 0 to 19"),
    ],
)
def test_a_line_that_cannot_be_read_is_named(line: str, said: str) -> None:
    with pytest.raises(InvalidRequest, match=said):
        from_file(f"fine\n{line}")


def test_seeds_of_lines_are_drawn_for_each_or_shared_or_counted_on() -> None:
    random = {"seed": -1, "n_iter": 2}
    assert fields(from_file("a\nb\nc", **random), "seed") == [(1000,), (1001,), (1002,)]
    assert fields(from_file("a\nb\nc", False, True, **random), "seed") == [(1000,)] * 3
    assert fields(from_file("a\nb\nc", True, **random), "seed") == [(1000,), (1002,), (1004,)]
    assert fields(from_file("a\n--prompt b --seed 3"), "seed") == [(10,), (3,)]


def test_an_empty_list_of_prompts_is_refused() -> None:
    with pytest.raises(InvalidRequest, match="empty"):
        from_file(" \n ")


@pytest.mark.parametrize(
    ("request_", "options", "grids"),
    [
        ({"save_images": True, "n_iter": 4}, {}, 1),
        ({"save_images": True, "n_iter": 4}, {"return_grid": False}, 0),
        ({"save_images": False, "n_iter": 4}, {"return_grid": True}, 0),
        ({"save_images": True}, {}, 0),
        ({"save_images": True}, {"grid_only_if_multiple": False}, 1),
        ({"save_images": True, "n_iter": 100, "batch_size": 8, "width": 1024, "height": 1024}, {}, 0),
    ],
)
def test_a_grid_stands_in_front_where_it_is_wanted(
    request_: dict[str, Any], options: dict[str, Any], grids: int
) -> None:
    assert len(plain(Txt2ImgPayload(**request_), options).arrangement.grids) == grids


def test_the_error_of_a_cell_says_which_cell_it_is() -> None:
    request = {**BASE, "script_name": "x/y/z plot", "script_args": {"x_type": "Steps", "x_values": "5,500"}}
    with pytest.raises(LimitExceeded, match=r"^Steps: 500: steps is 500"):
        resolve_txt2img(request, CATALOGUE)


_JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-5, 60) | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4),
    max_leaves=6,
)
_WRITTEN = st.sampled_from(
    ["", "1-3", "Euler", "red,blue", "-1", "1-2 [3]", "0.5", "64x64", "True", "a|b", "--steps 3"]
)


@given(
    st.sampled_from([script.script for script in SCRIPTS]),
    st.lists(_WRITTEN | _JSON, max_size=18)
    | st.dictionaries(st.sampled_from(["x_type", "x_values", "prompts"]), _JSON),
)
def test_whatever_the_arguments_are_a_script_is_expanded_or_refused(script: str, arguments: Any) -> None:
    try:
        made = expanded(script, arguments)
    except InvalidRequest as error:
        assert error.message
        return
    assert 1 <= sum(cell.pictures for cell in made.cells) <= 1000
    assert sorted(made.order) == list(range(len(made.cells)))
    assert all(
        cell.payload.script_name is None and cell.payload.seed not in (None, -1) for cell in made.cells
    )
