"""What an export was asked for, where it goes, and how to ask for it again."""

from __future__ import annotations

import argparse
import contextlib
import fcntl
import hashlib
import json
import os
import shlex
import shutil
import subprocess
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

from host.learning.recipe import Recipe, load_recipe
from host.learning.rendered import REPOSITORY
from host.pictures.reading import Pictures, digest
from protocol.errors import InputError
from protocol.manifest import Preprocess

RENDERED = "rendered"
RECIPE_TOML = "recipe.toml"  # of every package: the settings that made it
# Of an export: checkpoints of both phases, the package, and the drawn pictures.
ROOM_BYTES, ROOM_A_SEED_BYTES, ROOM_A_DRAWN_PART_BYTES = 64 << 20, 32 << 20, 160 << 10
MOST_SEEDS = 10


@dataclass(frozen=True)
class Order:
    product: str
    data: str  # a folder, or "rendered"
    recipe: Recipe
    out: Path
    id: str
    seeds: tuple[int, ...]  # the first one's network is shipped, the others say how much chance is in the figures
    backbone_weights: Path | None = None  # of a pretrained network that helps the training

    @property
    def seed(self) -> int:
        return self.seeds[0]

    @property
    def target(self) -> Path:
        return self.out / self.id

    @property
    def unfinished(self) -> Path:
        """What an interrupted export leaves, on the same file system as the package."""
        return self.out / f".{self.id}.unfinished"


def parse_order(words: list[str]) -> Order:
    """Raises: InputError for an option that cannot be used."""
    parser = argparse.ArgumentParser(prog="beltsight export", description="Make a model package from good pictures.")
    parser.add_argument("--product", required=True, help="name of the product, for example orange")
    parser.add_argument("--data", required=True, help="folder of pictures, or 'rendered' for drawn parts")
    parser.add_argument("--recipe", type=Path, help="TOML file of settings (host/learning/recipe.py lists them)")
    parser.add_argument("--out", type=Path, default=Path("models"), help="folder of the packages (default: models)")
    parser.add_argument("--id", help="name of the package (default: <product>-<input size>)")
    parser.add_argument(
        "--backbone-weights", type=Path, help="SqueezeNet 1.1's, torchvision's file: its features help the training"
    )
    chance = parser.add_mutually_exclusive_group()
    chance.add_argument("--seed", default="0", help="number that the random choices start from (default: 0)")
    chance.add_argument("--seeds", help="several, as 0,1,2: trains each, ships the first, reports mean and worst")
    options = parser.parse_args(words)
    recipe = load_recipe(options.recipe) if options.recipe else Recipe()
    identity = options.id or f"{options.product}-{recipe.input_px}"
    if not identity.replace("-", "").replace("_", "").isalnum():
        raise InputError(f"id {identity!r} must be letters, digits, '-' and '_': correct --id or --product")
    seeds = parse_seeds(options.seeds or options.seed)
    return Order(options.product, options.data, recipe, options.out, identity, seeds, options.backbone_weights)


def parse_seeds(text: str) -> tuple[int, ...]:
    """Of "0,1,2". Raises: InputError for anything but different numbers of 0..999."""
    words = text.split(",")
    for word in words:
        if not word.isdecimal() or int(word) >= 1000:
            raise InputError(f"seed {word} is outside 0..999: correct --seed or --seeds")
    seeds = tuple(map(int, words))
    if len(set(seeds)) != len(seeds) or len(seeds) > MOST_SEEDS:
        raise InputError(f"--seeds {text}: give at most {MOST_SEEDS} different numbers")
    return seeds


def check_order(order: Order) -> None:
    """Better now than after the training. Raises: InputError if the package could not be written."""
    there = next(path for path in (order.out, *order.out.resolve().parents) if path.exists())
    if not there.is_dir() or not os.access(there, os.W_OK):
        raise InputError(f"{there} is no folder that can be written: choose another --out")
    if order.target.exists() and not order.target.is_dir():
        raise InputError(f"{order.target} is there and no folder: remove it, or choose another --id")
    how = order.recipe.rendered
    drawn = how.train_parts + how.test_parts if order.data == RENDERED else 0
    room = ROOM_BYTES + ROOM_A_SEED_BYTES * len(order.seeds) + ROOM_A_DRAWN_PART_BYTES * drawn
    check_room(there, room)


@contextlib.contextmanager
def claim(order: Order) -> Iterator[None]:
    """One export at a time works on a package. Raises: InputError if another one does."""
    made = [folder for folder in (order.unfinished, *order.unfinished.parents) if not folder.exists()]
    order.unfinished.mkdir(parents=True, exist_ok=True)
    lock = os.open(order.unfinished, os.O_RDONLY | os.O_DIRECTORY)
    try:
        if not _lock(lock):
            raise InputError(f"another export makes {order.target}: wait for it, or choose another --id")
        yield
    finally:
        os.close(lock)
        _remove_empty(made)


def _lock(folder: int) -> bool:
    try:
        fcntl.flock(folder, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _remove_empty(folders: Iterable[Path]) -> None:
    """What a refused order would leave behind; what holds something stays."""
    with contextlib.suppress(OSError):
        for folder in folders:
            folder.rmdir()


def check_room(folder: Path, needed_bytes: int) -> None:
    free = shutil.disk_usage(folder).free
    if free < needed_bytes:
        raise InputError(
            f"{folder} has {free / 1e6:.0f} MB free, the export needs {needed_bytes / 1e6:.0f} MB: "
            "free some, or choose another --out"
        )


def fingerprint(order: Order, seed: int, pictures: Pictures, how: Preprocess) -> str:
    """Of all that shapes the training: state of another is not used. The threshold is set after it."""
    recipe = asdict(order.recipe)
    del recipe["description"], recipe["threshold"]
    return hash_values(recipe, seed, digest(pictures.train), _digest_backbone(order), asdict(how))


def hash_values(*values: object) -> str:
    return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()


def describe_provenance(order: Order, pictures: Pictures) -> dict[str, str]:
    """What it takes to make the package again; folders by their names, since they lie elsewhere on other machines."""
    data = order.data if order.data == RENDERED else Path(order.data).resolve().name
    words = ["scripts/export.sh", "--product", order.product, "--data", data, "--recipe", RECIPE_TOML]
    words += ["--id", order.id]
    if order.backbone_weights is not None:
        words += ["--backbone-weights", order.backbone_weights.name]
    words += ["--seeds", ",".join(map(str, order.seeds))] if len(order.seeds) > 1 else ["--seed", str(order.seed)]
    return {
        "command": shlex.join(words),
        "data": data,
        "data_sha256": digest([*pictures.train, *pictures.held_out]),
        "backbone_sha256": _digest_backbone(order),
        "seed": str(order.seed),
        "commit": source_commit(),
        "recipe": json.dumps(asdict(order.recipe), sort_keys=True),
    }


def _digest_backbone(order: Order) -> str:
    return digest([order.backbone_weights]) if order.backbone_weights is not None else "none"


def source_commit() -> str:
    """The source's commit, marked where files differ from it."""
    command = ["git", "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"]
    try:
        done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, timeout=30, check=False)  # noqa: S603
    except (OSError, subprocess.TimeoutExpired):
        return "unknown"
    return done.stdout.strip() or "unknown"
