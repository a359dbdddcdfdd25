"""One verdict in words: can this model be trusted with its product? From figures alone; measuring is others' work.

The AUROC of synthetic defects does not tell: it was 0.88 to 0.98 where a model found 2 to 25 % of the real ones. What
tells is how many small, faint, colourless defects are found at the threshold that the line uses.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Literal

from protocol.fitness import Concern, Fitness

Z = 1.96  # 95 % of a normal distribution, both sides

# Probes are as hard as a person's glance allows, so not all need be found: the shipped models, which find 97 to 100 %
# of their belts' painted defects, find 60 to 75 % of the probes.
FEW_PROBES, ENOUGH_PROBES = 0.4, 0.7
FEW_KNOWN_BAD, ENOUGH_KNOWN_BAD = 0.5, 0.75  # large and coloured ones too: easier
FEW_DEFECTS, ENOUGH_DEFECTS = 0.5, 0.8  # of labelled ones
MANY_REJECTED, TOO_MANY_REJECTED = 0.05, 0.2  # of good parts, for certain
UNSURE_REJECTED = 0.2  # what held-out pictures have to rule out: 16 of them do, if none is rejected
STRANGER = 0.75  # how often a held-out picture scores above a trained one, for certain; 0.5 if they are alike
MOST_COPIES = 0.1  # of the held-out pictures were trained on as well
FEW_PICTURES = 100
SHRUNK = 1.5  # frame pixels to one of the network's, along a side: from here on resolution is to be had


@dataclass(frozen=True)
class Share:
    """`part` of `of`, with the bounds of Wilson 1927 (95 %)."""

    part: int
    of: int

    @property
    def rate(self) -> float:
        return self.part / self.of

    @property
    def lower(self) -> float:
        return max(0.0, self._middle - self._reach)

    @property
    def upper(self) -> float:
        return min(1.0, self._middle + self._reach)

    @property
    def _middle(self) -> float:
        return (self.part + Z**2 / 2) / (self.of + Z**2)

    @property
    def _reach(self) -> float:
        return Z * math.sqrt(self.part * (self.of - self.part) / self.of + Z**2 / 4) / (self.of + Z**2)

    def __str__(self) -> str:
        return f"{self.part} of {self.of}"


@dataclass(frozen=True)
class Figures:
    """What was measured at the package's own threshold; None: could not be."""

    probes: Mapping[str, Share] = field(default_factory=dict)  # found, by kind
    known_bad: Share | None = None  # found
    held_out: Share | None = None  # good pictures rejected, of those that set the threshold
    copies: Share | None = None  # held-out pictures that were trained on as well
    stranger: Stranger | None = None
    defects: Share | None = None  # labelled ones, found
    goods: Share | None = None  # labelled good ones, rejected
    train_pictures: int = 0
    shrunk: float = 1.0  # frame pixels to one of the network's image, along a side
    has_mask: bool = False  # somebody said where nothing is looked at


@dataclass(frozen=True)
class Stranger:
    """How often a held-out good picture scores above a trained one (Mann and Whitney 1947); 0.5 if they are alike."""

    rate: float
    trained: int
    held_out: int

    @property
    def lower(self) -> float:
        """By the deviation that it has where they are alike (95 %)."""
        both = self.trained * self.held_out
        return self.rate - Z * math.sqrt((self.trained + self.held_out + 1) / (12 * both))


def judge_fitness(figures: Figures) -> Fitness:
    """The worst of all concerns is the verdict."""
    concerns = [*_judge_defects(figures), *_judge_synthetic(figures), *_judge_goods(figures), *_judge_split(figures)]
    concerns.sort(key=lambda concern: concern.grade != "unfit")
    return Fitness(concerns[0].grade if concerns else "fit", tuple(concerns), _list(figures))


def _judge_defects(figures: Figures) -> Iterator[Concern]:
    found = figures.defects
    if found is None:
        return
    why = f"it finds {found} labelled defective pictures"
    if found.upper < FEW_DEFECTS:
        yield Concern("unfit", why, _advise_seeing(figures))
    elif found.rate < ENOUGH_DEFECTS:
        yield Concern("weak", why, _advise_seeing(figures))


def _judge_synthetic(figures: Figures) -> Iterator[Concern]:
    """Real defects outweigh painted ones.

    Where more than half of them are surely found, the painted ones cannot make it unfit; where nearly all are, a
    weakness of theirs is none.
    """
    proved = 0.0 if figures.defects is None else figures.defects.lower
    for concern in (*_judge_probes(figures), *_judge_known_bad(figures)):
        if concern.grade == "unfit" and proved >= FEW_DEFECTS:
            yield replace(concern, grade="weak")
        elif concern.grade == "unfit" or proved < ENOUGH_DEFECTS:
            yield concern


def _judge_probes(figures: Figures) -> Iterator[Concern]:
    kinds = figures.probes
    if not kinds:
        why = "no small, faint defect can be painted on these pictures so that it is seen"
        yield Concern("weak", why, "give labelled defective pictures, so that its sight can be measured")
        return
    found = Share(sum(share.part for share in kinds.values()), sum(share.of for share in kinds.values()))
    why = f"it finds {found} small, faint defects that were painted on held-out good pictures"
    if found.rate < FEW_PROBES:
        yield Concern("unfit", why, _advise_seeing(figures))
    elif found.rate < ENOUGH_PROBES:
        yield Concern("weak", why, _advise_seeing(figures))
    else:
        blind = [f"{kind} ({share})" for kind, share in kinds.items() if share.upper < FEW_DEFECTS]
        if blind:
            yield Concern(
                "weak", f"it hardly finds small defects of the kind {', '.join(blind)}", _advise_seeing(figures)
            )


def _judge_known_bad(figures: Figures) -> Iterator[Concern]:
    found = figures.known_bad
    if found is None or found.rate >= ENOUGH_KNOWN_BAD:
        return
    why = f"it finds {found} known-bad parts that were made to test it"
    yield Concern("unfit" if found.rate < FEW_KNOWN_BAD else "weak", why, _advise_seeing(figures))


def _judge_goods(figures: Figures) -> Iterator[Concern]:
    held_out, goods = figures.held_out, figures.goods
    advice = "give more good pictures that show all that a good part may look like, in steady light"
    for rejected, which in ((held_out, "held-out"), (goods, "labelled test")):
        if rejected is None or rejected.lower <= MANY_REJECTED:
            continue
        grade: Literal["weak", "unfit"] = "unfit" if rejected.lower > TOO_MANY_REJECTED else "weak"
        yield Concern(grade, f"it rejects {rejected} good {which} pictures", advice)
    if held_out is not None and goods is not None and goods.lower > held_out.upper:
        why = (
            f"of the good test pictures {goods} are rejected, of the held-out ones {held_out}: they are not alike, so "
            "the threshold says nothing of the line"
        )
        yield Concern("weak", why, "take good pictures where and when the test pictures were taken")
    if held_out is not None and held_out.lower <= MANY_REJECTED and held_out.upper > UNSURE_REJECTED:
        why = f"{held_out.of} held-out good pictures are too few to say how many good parts it rejects"
        yield Concern("weak", why, "give more good pictures")


def _judge_split(figures: Figures) -> Iterator[Concern]:
    copies, stranger = figures.copies, figures.stranger
    if copies is not None and copies.rate > MOST_COPIES:
        why = f"{copies} held-out pictures are nearly the same as trained ones, so the threshold is too low"
        yield Concern("weak", why, "keep one picture of each part")
    if stranger is not None and stranger.lower > STRANGER:
        why = f"held-out good pictures look stranger to it than trained ones ({stranger.rate:.0%} of pairs, not 50 %)"
        yield Concern("weak", why, "give more good pictures, taken in the same way")


def _advise_seeing(figures: Figures) -> str:
    """What helps most first."""
    advice = []
    if figures.shrunk >= SHRUNK:
        advice.append(f"a higher resolution (input_px; the pictures have {figures.shrunk:.1f} times as much a side)")
    if figures.train_pictures < FEW_PICTURES:
        advice.append(f"more good pictures ({figures.train_pictures} are trained on)")
    advice.append("steadier light and a part that always lies the same way")
    if not figures.has_mask:
        advice.append("a mask (ignore.png) of what varies and does not matter")
    return f"try {', '.join(advice)}"


def _list(figures: Figures) -> dict[str, float]:
    """By names, for the manifest and the card; what was not measured is not there."""
    shares = {f"probe:{kind}": share for kind, share in figures.probes.items()}
    named = {
        "known_bad_found": figures.known_bad,
        "held_out_rejected": figures.held_out,
        "held_out_copies": figures.copies,
        "defects_found": figures.defects,
        "goods_rejected": figures.goods,
    }
    measured: dict[str, float] = {}
    for name, share in {**shares, **named}.items():
        if share is not None:
            measured |= {name: share.rate, f"{name}:lower": share.lower, f"{name}:upper": share.upper}
    return measured | ({} if figures.stranger is None else {"held_out_above_trained": figures.stranger.rate})
