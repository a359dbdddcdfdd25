"""Whether a model sees its product's defects, as its export judged: what a station asks before it takes one."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from protocol.errors import ManifestError
from protocol.strict import require

Grade = Literal["fit", "weak", "unfit"]
NOT_JUDGED = "not judged"  # packages of before, and those of programs that measure nothing


@dataclass(frozen=True)
class Concern:
    """One thing that speaks against a model."""

    grade: Literal["weak", "unfit"]
    why: str
    what_to_do: str


@dataclass(frozen=True)
class Fitness:
    grade: Grade
    concerns: tuple[Concern, ...] = ()  # the worst first
    measured: dict[str, float] = field(default_factory=dict)  # what it was judged by; no figure: not measured

    def __post_init__(self) -> None:
        worst = self.concerns[0].grade if self.concerns else "fit"
        require(self.grade == worst, "grade", f"must be {worst}, that of the first concern")

    def describe(self) -> str:
        """One line."""
        if not self.concerns:
            return "fit: nothing that was measured speaks against it"
        return f"{self.grade}: " + "; ".join(concern.why for concern in self.concerns)

    def advise(self) -> str:
        """What helps, each once."""
        return "; ".join(dict.fromkeys(concern.what_to_do for concern in self.concerns))


def require_fit(model_id: str, fitness: Fitness | None, how_anyway: str) -> None:
    """`how_anyway` says what the user does to take it all the same.

    Raises: ManifestError for a model that was judged unfit; one that was not judged is taken, as ever.
    """
    if fitness is not None and fitness.grade == "unfit":
        raise ManifestError(f"{model_id} is {fitness.describe()}: make a better one as its card says, or {how_anyway}")
