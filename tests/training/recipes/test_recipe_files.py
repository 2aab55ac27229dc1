from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from robustzs_training.objective_options import options_model
from robustzs_training.recipe_files import (
    builtin_names,
    list_recipes,
    load_recipe,
    recipe_text,
    recipe_yaml,
)
from robustzs_training.recipe_yaml import read_yaml

from robustzs.errors import RecipeError

SMALL = """
name: mine
model: {source: robustzs-lite-clean}
data: {source: folder, path: pictures}
objective: {name: fare}
threat: {eps: 2/255}
attack: {n_steps: 3, step_size: 1/255}
optimizer: {lr: 1e-5}
schedule: {steps: 10}
run: {batch_size: 4}
"""


def problems(text, *changes, folder=None):
    name = "qt-aft-vit-b-16"
    if folder is not None:
        name = folder / "mine.yaml"
        name.write_text(text, encoding="utf-8")
    with pytest.raises(RecipeError) as caught:
        load_recipe(name, changes)
    return str(caught.value)


# ---- what the sources say ------------------------------------------------------------------------

SETTINGS = {
    "qt-aft-vit-b-16": (4, 10, 0.9, "adamw", 1e-5, 1e-4, 128, 1000),
    "qt-aft-vit-l-14": (4, 10, 0.9, "adamw", 1e-5, 1e-4, 128, 1000),
    "fare": (4, 10, 0.9, "adamw", 1e-5, 1e-4, 128, 1400),
    "sim-clip": (4, 10, 0.9, "adamw", 1e-3, 1e-5, 64, 1400),
    "tecoa": (1, 2, 0.0, "sgd", 1e-5, 0.0, 256, 1000),
    "pmg-aft": (1, 2, 0.0, "sgd", 5e-5, 0.0, 256, 1000),
    "tga-zsr": (1, 2, 0.0, "sgd", 1e-4, 0.0, 128, 1000),
    "agft": (1, 2, 0.0, "sgd", 4e-4, 0.0, 256, 1000),
    "hierarchical-vit-b-32": (1, 3, 0.0, "adamw", 1e-5, 1e-4, 128, 1000),
}


@pytest.mark.parametrize("name", SETTINGS)
def test_recipes_have_the_settings_of_their_sources(name):
    recipe = load_recipe(name)
    found = (
        round(recipe.threat.eps * 255, 9),
        recipe.attack.n_steps,
        recipe.attack.momentum,
        recipe.optimizer.name,
        recipe.optimizer.lr,
        recipe.optimizer.weight_decay,
        recipe.run.batch_size,
        recipe.schedule.warmup_steps,
    )
    assert found == SETTINGS[name]
    assert recipe.attack.step_size == pytest.approx(1 / 255)
    assert recipe.attack.start == "uniform"
    assert recipe.schedule.name == "cosine"


def test_qt_aft_follows_its_authors_code():
    recipe = load_recipe("qt-aft-vit-b-16")
    assert recipe.optimizer.betas == (0.9, 0.95)
    assert recipe.schedule.epochs == 2
    assert recipe.model.resize == "qt-aft"
    assert recipe.objective.options == {
        "caption_weight": 10.0,
        "initial_logit_scale": pytest.approx(1 / 0.07),
    }


@pytest.mark.parametrize("name", builtin_names())
def test_every_recipe_is_complete(name):
    recipe = load_recipe(name)
    assert recipe.name == name
    assert recipe.summary
    assert recipe.source
    assert recipe_text(name).startswith("#")
    options_model(recipe.objective.name).model_validate(recipe.objective.options)
    again = read_yaml(recipe_yaml(recipe), name)
    assert type(recipe).model_validate(again) == recipe


def test_the_list_has_a_line_for_each():
    assert [info.name for info in list_recipes()] == builtin_names()
    assert all(0 < len(info.summary) <= 100 for info in list_recipes())


# ---- problems ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ("attack.n_step=5", "attack.n_step is no key of a recipe; did you mean attack.n_steps?"),
        ("attack.eps=1/255", "did you mean threat.eps or evaluate.eps?"),
        ("attak.n_steps=5", "attak is no key of a recipe; did you mean attack?"),
        ("objective.caption_weigth=1", "did you mean objective.caption_weight?"),
        ("objective.zzz=1", "objective has caption_weight, initial_logit_scale"),
        ("data.augment.flipp=true", "did you mean data.augment.flip?"),
        ("attack.n_steps=-1", "attack.n_steps is -1: it should be greater than or equal to 0"),
        ("attack.n_steps=many", "attack.n_steps is 'many': it should be a valid integer"),
        ("attack.n_steps=true", "n_steps is true, where no yes or no belongs"),
        ("optimizer.lr=0", "optimizer.lr is 0: it should be greater than 0"),
        ("optimizer.lr=inf", "optimizer.lr is 'inf': it should be a finite number"),
        ("optimizer.betas=[0.9, 1.0]", "betas is [0.9, 1.0]: both from 0 to below 1"),
        ("threat.eps=4", "eps 4 is more than the range of a pixel (write 4/255"),
        ("threat.eps=4/0", "threat.eps: '4/0' is no size"),
        ("threat.eps=[1]", "threat.eps: a size is a number"),
        ("threat.norm=linf", "threat.norm is 'linf'"),
        ("objective.name=qt_aft", "did you mean qt-aft?"),
        ("objective.caption_weight=heavy", "objective.caption_weight is 'heavy'"),
        ("data.augment.scale=[0.9, 0.5]", "scale is [0.9, 0.5]: 0 < low <= high <= 1"),
        ("data.hierarchy=[{depth: [3]}]", "did you mean data.hierarchy.0.depths?"),
        ("data.hierarchy=[{depths: [1], classes: [2]}]", "depths and classes exclude each other"),
        ("data.hierarchy=[]", "data.hierarchy is []"),
        ("model=null", "model is None"),
        ("run.batch_size=", "run.batch_size is None"),
    ],
)
def test_a_problem_names_its_key_and_what_was_meant(change, expected):
    assert expected in problems("", change)


def test_all_problems_are_told_at_once(tmp_path):
    text = SMALL.replace("lr: 1e-5", "lr: -1").replace("n_steps: 3", "steps: 3")
    told = problems(text, "objective.weight=2", folder=tmp_path)
    assert "4 problems" in told
    for expected in (
        "optimizer.lr is -1",
        "attack.n_steps is missing",
        "attack.steps is no key of a recipe; did you mean schedule.steps?",
        "objective.weight is no key",
    ):
        assert expected in told


def test_options_of_trees_are_checked_by_their_class():
    with pytest.raises(RecipeError, match=r"curvature is -1\.0"):
        load_recipe("hierarchical-vit-b-32", ["objective.curvature=-1"])
    with pytest.raises(RecipeError, match=r"did you mean objective\.tree\.n_levels\?"):
        load_recipe("qt-aft-hierarchical-vit-b-32", ["objective.tree.n_level=3"])
    with pytest.raises(RecipeError, match="intra_gap"):
        load_recipe("hierarchical-vit-b-32", ["objective.intra_gap=sideways"])


def test_no_such_recipe(tmp_path):
    with pytest.raises(RecipeError, match="did you mean qt-aft-vit-b-16"):
        load_recipe("qt-aft-vit-b16")
    with pytest.raises(RecipeError, match="there is no recipe file"):
        load_recipe(tmp_path / "missing.yaml")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a: [1", "line 1"),
        ("a: 1\na: 2", "the key 'a' is given twice"),
        ("a: &x 1\nb: *x", "anchor or alias 'x'"),
        ("a: !!python/object:os.system 1", "constructor"),
        ("- 1", "is list, not keys"),
        ("just text", "is str, not keys"),
        ("", "is NoneType, not keys"),
        ("a: 1\n---\nb: 2", "another document"),
        ("[" * 5000, "the recipe"),
        ("? [a, b]\n: 1", "a key is text"),
        ("x" * 300_000, "longer than"),
    ],
)
def test_what_is_no_recipe_file(tmp_path, text, expected):
    assert expected in problems(text, folder=tmp_path)


@pytest.mark.parametrize("change", ["attack.n_steps", "=3", "attack..n_steps=3", "name.x=3"])
def test_what_is_no_change(change):
    assert "--set" in problems("", change)


# ---- values --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("1e-5", 1e-5),
        ("1.5E3", 1500.0),
        ("-.5", -0.5),
        ("4/255", "4/255"),
        ("no", "no"),
        ("off", "off"),
        ("true", True),
        ("010", "010"),
        ("1:30", "1:30"),
        ("2026-11-22", "2026-11-22"),
        ("0x10", "0x10"),
        (".inf", ".inf"),
        ("~", None),
        ("", None),
        ("'5'", "5"),
        ("[1, 2.0, a]", [1, 2.0, "a"]),
        ("{4: x}", {"4": "x"}),
        ("<<", "<<"),
    ],
)
def test_scalars_are_what_people_mean(text, expected):
    found = read_yaml(text, "x")
    assert found == expected
    assert type(found) is type(expected)


@given(st.floats(allow_nan=False, allow_infinity=False))
def test_every_way_that_python_writes_a_number_is_read(value):
    assert read_yaml(repr(value), "x") == value


@given(st.integers())
def test_whole_numbers_stay_whole(value):
    found = read_yaml(str(value), "x")
    assert found == value
    assert isinstance(found, int)


def test_changes_are_typed():
    recipe = load_recipe(
        "qt-aft-vit-b-16",
        [
            "attack.n_steps=5",
            "optimizer.lr=2e-6",
            "threat.eps=8/255",
            "data.augment.flip=yes",
            "data.hierarchy=[wordnet, flat]",
            "evaluate=null",
            "run.trackers=[]",
        ],
    )
    assert recipe.attack.n_steps == 5
    assert recipe.optimizer.lr == 2e-6
    assert recipe.threat.eps == pytest.approx(8 / 255)
    assert recipe.data.augment.flip is True
    assert [part.tree for part in recipe.data.hierarchy] == ["wordnet", "flat"]
    assert recipe.evaluate is None
    assert recipe.run.trackers == ()


def test_steps_replace_epochs_and_another_objective_its_options():
    recipe = load_recipe("qt-aft-vit-b-16", ["schedule.steps=7", "objective.name=fare"])
    assert (recipe.schedule.steps, recipe.schedule.epochs) == (7, None)
    assert recipe.objective.options == {}
    assert recipe.schedule.warmup_steps == 1000


def test_neither_or_both_lengths_are_refused(tmp_path):
    assert "neither of epochs and steps" in problems(
        SMALL.replace("steps: 10", "warmup_steps: 0"), folder=tmp_path
    )
    assert "both of epochs and steps" in problems(
        SMALL.replace("steps: 10", "steps: 10, epochs: 1"), folder=tmp_path
    )


def test_a_file_may_extend_another(tmp_path):
    (tmp_path / "base.yaml").write_text(SMALL, encoding="utf-8")
    (tmp_path / "mine.yml").write_text(
        "extends: base.yaml\nname: longer\nschedule: {epochs: 2}\ndata: {path: other}\n",
        encoding="utf-8",
    )
    recipe = load_recipe(tmp_path / "mine.yml", ["attack.n_steps=1"])
    assert recipe.name == "longer"
    assert recipe.schedule.epochs == 2
    assert (recipe.data.source, recipe.data.path) == ("folder", "other")
    (tmp_path / "own.yaml").write_text("extends: fare\nname: own\n", encoding="utf-8")
    assert load_recipe(tmp_path / "own.yaml").schedule.steps == 20000


def test_circles_are_refused(tmp_path):
    (tmp_path / "a.yaml").write_text("extends: b.yaml", encoding="utf-8")
    (tmp_path / "b.yaml").write_text("extends: a.yaml", encoding="utf-8")
    with pytest.raises(RecipeError, match="in a circle"):
        load_recipe(tmp_path / "a.yaml")


# ---- digest --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "counts"),
    [
        ("optimizer.lr=3e-6", True),
        ("threat.eps=3/255", True),
        ("objective.caption_weight=9", True),
        ("run.seed=1", True),
        ("data.augment.flip=true", True),
        ("name=other", False),
        ("data.caption_mode=names", True),
        ("summary=other", False),
        ("run.log_every=3", False),
        ("run.checkpoint_every=3", False),
        ("data.path=/elsewhere", False),
        ("data.n_workers=2", False),
        ("evaluate=null", False),
        ("export.enabled=false", False),
    ],
)
def test_the_digest_is_that_of_what_decides_the_weights(change, counts):
    before, after = load_recipe("qt-aft-vit-b-16"), load_recipe("qt-aft-vit-b-16", [change])
    assert (before.digest != after.digest) is counts


def test_a_written_default_changes_no_digest():
    assert (
        load_recipe("qt-aft-vit-b-16", ["attack.n_restarts=1"]).digest
        == load_recipe("qt-aft-vit-b-16").digest
    )
