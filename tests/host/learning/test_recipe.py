"""Recipes are read strictly."""

from __future__ import annotations

from pathlib import Path

import pytest

from host.learning.recipe import Recipe, load_recipe
from protocol.errors import ConfigError


def test_nested_tables(tmp_path: Path) -> None:
    path = tmp_path / "wide.toml"
    path.write_text('pairs = 4\n[widths]\nencoder = [16, 32, 32, 32, 32]\n[threshold]\nmethod = "k-sigma"\nvalue = 3\n')
    recipe = load_recipe(path)
    assert recipe.pairs == 4
    assert recipe.widths.encoder == (16, 32, 32, 32, 32)
    assert recipe.threshold.method == "k-sigma"
    assert recipe.float_steps == Recipe().float_steps


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("steps = 3", "steps: unknown key"),
        ('pairs = "many"', "pairs: must be a whole number"),
        ("pairs = 0", "pairs: must be 1..256"),
        ("pairs = 100000000", "pairs: must be 1..256"),
        ("held_out_share = 0.99", "held_out_share: must lie between 0 and 0.5"),
        ("input_px = 1000000000", "input_px: must be a multiple of 32 up to 1024"),
        ("weight_bits = 3", "weight_bits: must be 4 or 8"),
        ("input_px = 100", "input_px: must be a multiple of 32"),
        ("[threshold]\nmethod = 'best'", "threshold.method: must be one of"),
        ("[loss]\ngood_pixels = 0", "loss.good_pixels: must be above 0"),
        ("[loss]\nscore = -1", "loss.score: must not be negative"),
        ("pairs = ", "is not TOML"),
    ],
)
def test_mistakes_are_named(tmp_path: Path, text: str, problem: str) -> None:
    path = tmp_path / "recipe.toml"
    path.write_text(text)
    with pytest.raises(ConfigError, match=rf"recipe\.toml.*{problem}"):
        load_recipe(path)


def test_missing_recipe(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot be read"):
        load_recipe(tmp_path / "none.toml")


def test_an_editor_may_put_a_mark_before_the_text(tmp_path: Path) -> None:
    (tmp_path / "recipe.toml").write_text('\ufeffdescription = "marked"\n', encoding="utf-8")
    assert load_recipe(tmp_path / "recipe.toml").description == "marked"
