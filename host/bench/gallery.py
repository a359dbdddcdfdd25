"""Pictures, their heat-maps and true masks, of one row."""

from __future__ import annotations

import numpy as np

from host.bench.detector import Maps
from host.bench.problems import DIGEST_SEED, Problem
from host.export.card import draw_heatmaps

GOOD, DEFECTIVE = 2, 6
SHARPNESS = 4.0  # a map's value halfway up to the highest of a held-out good picture gets 1 / (1 + e²) of the colours


def draw_gallery(problem: Problem, held_out: Maps, test: Maps) -> bytes:
    """PNG. The colours' middle is the highest value that a held-out good picture has."""
    order = np.random.default_rng(DIGEST_SEED).permutation(len(test))
    good = order[~problem.defective[order]][:GOOD]
    bad = order[problem.defective[order] & problem.pixels_known[order]][:DEFECTIVE]
    bad = bad if len(bad) else order[problem.defective[order]][:DEFECTIVE]
    chosen = np.concatenate([good, bad])
    usual, highest = float(np.median(held_out)), float(held_out.max())
    logits = SHARPNESS * (test[chosen] - highest) / max(highest - usual, 1e-12)
    blank = np.zeros((1, 1), np.bool_)
    masks = [problem.masks[int(index)] if problem.masks else blank for index in chosen]
    return draw_heatmaps(problem.test[chosen], np.clip(logits, -30, 30).astype(np.float32), masks)
