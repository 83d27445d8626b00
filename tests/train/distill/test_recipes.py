"""Recipes: names, files, and what they refuse."""

import pytest

from edgekd.errors import InputError
from edgekd.train.distill.recipes import PURPOSES, RECIPES, Recipe, explain_fields, load_recipe


def test_named_recipes_are_complete():
    for name in RECIPES:
        assert load_recipe(name) is RECIPES[name]


def test_a_file_and_its_changes(tmp_path):
    path = tmp_path / "r.json"
    path.write_text('{"levels": ["P4"], "level_weights": [2.0], "schedule": {"epochs": 7}}')
    recipe = load_recipe(str(path)).with_schedule(imgsz=320, batch=None)
    assert recipe.levels == ("P4",) and recipe.schedule.epochs == 7
    assert recipe.schedule.imgsz == 320 and recipe.schedule.batch == Recipe().schedule.batch


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("{", "is not a recipe"),
        ('{"lambda_featur": 1}', "lambda_featur"),
        ('{"target_share": 1.5}', "target_share"),
        ('{"levels": ["P9"]}', "levels"),
        ('{"levels": ["P3"]}', "1 levels need as many level_weights"),
        ('{"schedule": {"imgsz": 100}}', "schedule.imgsz"),
    ],
)
def test_what_no_recipe_may_say(tmp_path, text, sentence):
    path = tmp_path / "r.json"
    path.write_text(text)
    with pytest.raises(InputError, match=sentence):
        load_recipe(str(path))


def test_unknown_name_and_bad_change():
    with pytest.raises(InputError, match="neither a recipe"):
        load_recipe("fast")
    with pytest.raises(InputError, match="imgsz is 100"):
        Recipe().with_schedule(imgsz=100)


def test_every_recipe_and_every_field_is_explained():
    assert PURPOSES.keys() == RECIPES.keys()
    fields = {name: (default, what) for name, default, what in explain_fields()}
    assert fields["schedule.epochs"] == ("100", "passes over the training pictures")
    assert all(what for _, what in fields.values())
    assert len(fields) == len(Recipe.model_fields) - 1 + len(type(Recipe().schedule).model_fields)
