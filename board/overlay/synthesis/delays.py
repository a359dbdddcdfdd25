"""Delays of the cells and nets of an XC7Z020-1, in nanoseconds, for an estimate before placement.

Sources:
 [A] DS189 v1.10 (Spartan-7, the same fabric), table 30, grade -1.
 [B] a published timing report of a routed XC7Z020-1 design, as Vivado prints it.
 [C] `techlibs/xilinx/cells_sim.v` of Yosys 0.70, which quotes Project X-Ray; its carry chain has the numbers of [B],
     its block RAM those of [A]. Its DSP48E1 is that of a faster grade: times 1.35.
 [D] the maker's reports for this grade as the author remembers them: no document was at hand. So is the 1.35.
Nets are no data but two fits:
- `net`, of short wires: the routed nets of [B], a small design in Vivado: 0.45 to 0.98 at one to four sinks, 1.14 at
  seven, 1.33 at 62. It is silent on a broadcast: it says 2.3 for a reset that the router of [E] needed 8.2 for.
- `wire`, of long ones: the routed paths of [E], this overlay as it was, placed and routed for xc7z020-1 by openXC7's
  nextpnr-xilinx. What routing took in five of its worst paths, by the sinks of their nets, and fitted by least squares:

  | path | sinks of its nets | routed | `wire` |
  |---|---|---|---|
  | mode bit to multipliers | 128, 240, 12 DSP48E1 | 15.0 | 17.4 |
  | a queue's level to itself | 10, 69, 4 | 15.0 | 9.2 |
  | weights' format to block RAMs | 130, 12 RAMB36E1 | 14.1 | 11.8 |
  | reset | 1,236, 11,363 | 13.4 | 16.5 |
  | first step to the sums | 1,056, 2, 1 | 11.3 | 9.0 |
"""

from __future__ import annotations

import math

LUT = 0.124  # [B]
MUX = {"I0": 0.217, "I1": 0.223, "S": 0.296}  # [C]
FF_CLOCK_TO_Q = 0.518  # [B], the slower of 0.456 and 0.518
FF_SETUP = {"D": 0.08, "CE": 0.205, "R": 0.524, "S": 0.524}  # [D]
LUTRAM_CLOCK_TO_O, LUTRAM_READ, LUTRAM_SETUP = 1.314, LUT, 0.654  # [D], [B], [C]: WE, the slowest
SHIFTER_CLOCK_TO_Q, SHIFTER_SETUP = 1.632, 0.28  # [D]
BRAM_CLOCK_TO_DO, BRAM_CLOCK_TO_DO_REGISTERED = 2.46, 0.89  # [A]
BRAM_SETUP_ADDRESS, BRAM_SETUP_DATA, BRAM_SETUP_OTHER = 0.57, 0.74, 0.54  # [A], [A], [C]
FAR_BLOCKS = 4
PORT = 1.5  # our assumption for what lies outside: clock to output of the PS and its set-up

_DSP = 1.35
DSP_P = {"PREG": _DSP * 0.329, "MREG": _DSP * 1.687, "AREG": _DSP * 2.952}  # clock to P by the last register, [C]
DSP_PCOUT = {"PREG": _DSP * 0.435, "MREG": _DSP * 1.835, "AREG": _DSP * 3.098}
DSP_SETUP_REGISTERED = {"A": _DSP * 0.254, "B": _DSP * 0.324, "C": _DSP * 0.168}
DSP_SETUP_TO_M = {"A": _DSP * 1.416, "B": _DSP * 1.285}
DSP_SETUP_TO_P = {"A": _DSP * 2.739, "B": _DSP * 2.608, "C": _DSP * 1.244, "PCIN": _DSP * 1.025}
DSP_THROUGH = {"A": _DSP * 2.823, "B": _DSP * 2.690, "C": _DSP * 1.325, "PCIN": _DSP * 1.107}
DSP_SETUP_CONTROL = 0.5  # clock enables and resets, [D]

# [C], picoseconds; the inputs in front, the outputs O[0..3], CO[0..3] behind. None: no such arc.
_CARRY = {
    ("CYINIT", 0): (482, 598, 584, 642, 536, 494, 592, 580),
    ("CI", 0): (222, 334, 239, 313, 271, 157, 228, 114),
    ("S", 0): (223, 400, 523, 582, 340, 433, 512, 508),
    ("S", 1): (None, 205, 558, 618, None, 469, 548, 528),
    ("S", 2): (None, None, 226, 330, None, None, 292, 378),
    ("S", 3): (None, None, None, 227, None, None, None, 380),
    ("DI", 0): (None, 407, 556, 615, 379, 465, 540, 526),
    ("DI", 1): (None, None, 537, 596, None, 445, 520, 507),
    ("DI", 2): (None, None, None, 438, None, None, 356, 398),
    ("DI", 3): (None, None, None, None, None, None, None, 385),
}
CARRY = {
    (*source, ("O", "CO")[place // 4], place % 4): delay / 1000
    for source, delays in _CARRY.items()
    for place, delay in enumerate(delays)
    if delay is not None
}


def net(sinks: int) -> float:
    """A short net: one sink 0.65, seven 0.99, 62 1.36."""
    return 0.65 + 0.12 * math.log2(sinks)


def wire(sinks: int, blocks: int) -> float:
    """As that router had it: one sink 0.65, 32 3.85, a thousand 7.0. `blocks`: the DSPs and block RAMs among the sinks,
    which lie in a few columns, far from each other.
    """
    return 0.65 + 0.64 * math.log2(sinks) + (3.6 if blocks >= FAR_BLOCKS else 0.0)
