"""The verdict, from tables of figures."""

from __future__ import annotations

from dataclasses import replace

import pytest

from host.judging.fitness import Figures, Share, Stranger, judge_fitness
from protocol.errors import ManifestError
from protocol.fitness import Concern, Fitness, require_fit
from protocol.strict import FieldError

KINDS = ("spot", "scratch", "dent", "bent edge")
SOUND = Figures(
    probes={kind: Share(28, 32) for kind in KINDS},
    known_bad=Share(19, 20),
    held_out=Share(1, 52),
    copies=Share(0, 52),
    stranger=Stranger(0.55, 100, 52),
    train_pictures=157,
)


def found(part: int) -> dict[str, Share]:
    return {kind: Share(part, 32) for kind in KINDS}


def test_a_model_that_sees_its_defects_is_fit() -> None:
    fitness = judge_fitness(SOUND)
    assert fitness.grade == "fit"
    assert fitness.concerns == ()
    assert fitness.measured["probe:spot"] == pytest.approx(0.875)
    assert "defects_found" not in fitness.measured  # nothing was labelled


@pytest.mark.parametrize(
    ("change", "grade", "why"),
    [
        # Without labels: what is painted on held-out good pictures tells.
        ({"probes": found(0)}, "unfit", "finds 0 of 128 small, faint defects"),
        ({"probes": found(12)}, "unfit", "finds 48 of 128 small"),
        ({"probes": found(13)}, "weak", "finds 52 of 128 small"),
        ({"probes": found(22)}, "weak", "finds 88 of 128 small"),
        ({"probes": found(23)}, "fit", ""),
        ({"probes": found(32) | {"bent edge": Share(4, 32)}}, "weak", "kind bent edge (4 of 32)"),
        ({"probes": found(32) | {"bent edge": Share(1, 2)}}, "fit", ""),  # of two pictures nothing is certain
        ({"probes": {}}, "weak", "can be painted"),
        ({"known_bad": Share(9, 20)}, "unfit", "9 of 20 known-bad parts"),
        ({"known_bad": Share(14, 20)}, "weak", "14 of 20 known-bad parts"),
        # Labelled defects count, as far as they are certain.
        ({"defects": Share(2, 100)}, "unfit", "2 of 100 labelled"),
        ({"defects": Share(15, 60)}, "unfit", "15 of 60 labelled"),
        ({"defects": Share(1, 4)}, "weak", "1 of 4 labelled"),
        ({"defects": Share(76, 100)}, "weak", "76 of 100 labelled"),
        ({"defects": Share(82, 100)}, "fit", ""),
        # Where many real ones are found, painted ones count less; where few are there, they do not.
        ({"defects": Share(180, 222), "probes": found(0)}, "weak", "finds 0 of 128 small"),
        ({"defects": Share(180, 222), "probes": found(13)}, "weak", "finds 52 of 128 small"),
        ({"defects": Share(33, 63), "probes": found(0)}, "unfit", "finds 0 of 128 small"),
        ({"defects": Share(62, 63), "probes": found(2)}, "weak", "finds 8 of 128 small"),
        ({"defects": Share(62, 63), "probes": found(20)}, "fit", ""),
        ({"defects": Share(3, 3), "probes": found(2)}, "unfit", "finds 8 of 128 small"),
        # Good parts.
        ({"held_out": Share(20, 52)}, "unfit", "rejects 20 of 52 good held-out"),
        ({"held_out": Share(7, 52)}, "weak", "rejects 7 of 52 good held-out"),
        ({"goods": Share(9, 20)}, "unfit", "rejects 9 of 20 good labelled test"),
        ({"held_out": Share(0, 52), "goods": Share(2, 20)}, "fit", ""),  # one in fifteen is possible on both sides
        ({"held_out": Share(0, 80), "goods": Share(6, 40)}, "weak", "not alike"),
        ({"held_out": Share(0, 8)}, "weak", "8 held-out good pictures are too few"),
        # The split.
        ({"copies": Share(12, 52)}, "weak", "12 of 52 held-out pictures are nearly the same"),
        ({"copies": Share(5, 52)}, "fit", ""),
        ({"stranger": Stranger(0.95, 100, 52)}, "weak", "look stranger"),
        ({"stranger": Stranger(0.95, 4, 3)}, "fit", ""),
    ],
)
def test_the_worst_figure_is_the_verdict(change: dict[str, object], grade: str, why: str) -> None:
    fitness = judge_fitness(replace(SOUND, **change))  # type: ignore[arg-type]
    assert fitness.grade == grade
    assert why in fitness.describe()


def test_the_worst_is_said_first_and_with_what_helps() -> None:
    figures = replace(SOUND, copies=Share(30, 52), probes=found(1), shrunk=3.5, train_pictures=40)
    first, second = judge_fitness(figures).concerns
    assert (first.grade, second.grade) == ("unfit", "weak")
    assert "higher resolution (input_px; the pictures have 3.5 times as much a side)" in first.what_to_do
    assert "more good pictures (40 are trained on)" in first.what_to_do
    assert "a mask" in first.what_to_do
    (only,) = judge_fitness(replace(SOUND, probes=found(1), has_mask=True)).concerns
    assert "mask" not in only.what_to_do
    assert "resolution" not in only.what_to_do


def test_a_share_knows_how_uncertain_it_is() -> None:
    """Of Wilson 1927, against values from published tables."""
    assert (Share(0, 10).lower, Share(0, 10).upper) == pytest.approx((0.0, 0.2775), abs=1e-4)
    assert (Share(5, 10).lower, Share(5, 10).upper) == pytest.approx((0.2366, 0.7634), abs=1e-4)
    assert Share(10, 10).upper == 1.0


def test_only_what_was_judged_unfit_is_refused() -> None:
    weak = Fitness("weak", (Concern("weak", "it is blind", "look"),))
    for fitness in (None, Fitness("fit"), weak):
        require_fit("one", fitness, "say so")
    unfit = Fitness("unfit", (Concern("unfit", "it is blind", "look"),))
    with pytest.raises(ManifestError, match="one is unfit: it is blind: make a better one as its card says, or say so"):
        require_fit("one", unfit, "say so")


def test_a_verdict_agrees_with_its_reasons() -> None:
    with pytest.raises(FieldError, match="must be unfit"):
        Fitness("fit", (Concern("unfit", "it is blind", "look"),))
    with pytest.raises(FieldError, match="must be fit"):
        Fitness("unfit")
