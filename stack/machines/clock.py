"""Compare the machines' clocks: certificates, the lock and logs need them to agree."""

import time
from collections.abc import Mapping

from stack.machines.machine import Machine

# Seconds. A clock that NTP keeps is off by milliseconds, so this one isn't kept; and it is
# still far from what the lock forgives, which is held for LIFETIME - RENEWAL without a sign.
TOLERANCE = 5.0
TRIES = 3
# Seconds. The offset is known to half of it, which is plenty for the tolerance.
GOOD_ROUND_TRIP = 1.0


def offset(machine: Machine) -> float:
    """Return by how many seconds a machine's clock is ahead of this computer's.

    Half of the round trip is taken out, as NTP does. The first command of a connection may
    take long, so the quickest of some tries counts. Raises CommandFailed.
    """
    tries = []
    for _ in range(TRIES):
        asked = time.time()
        there = float(machine.must(["date", "+%s.%N"]))
        answered = time.time()
        tries.append((answered - asked, there - (asked + answered) / 2))
        if answered - asked <= GOOD_ROUND_TRIP:
            break
    return min(tries)[1]


def complaints(offsets: Mapping[str, float]) -> list[str]:
    """Return a line for each clock that is off, of the machines and of this computer.

    This computer's is the measure, unless more than half of all clocks, itself included,
    agree on another time. Against a single machine there is no telling which one is wrong.
    """
    if len(offsets) == 1:
        return [f"{name}: its clock is {_apart(off)} of this computer's: see timedatectl on both"
                for name, off in offsets.items() if abs(off) > TOLERANCE]
    measure = _measure(list(offsets.values()))
    lines = []
    if measure:
        lines.append(f"this computer's clock is {_apart(-measure)}, and most machines agree with "
                     "each other: set it")
    return lines + [f"{name}: its clock is {_apart(off - measure)}: see timedatectl on it"
                    for name, off in offsets.items() if abs(off - measure) > TOLERANCE]


def _measure(offsets: list[float]) -> float:
    """Return the offset of the time that is right: 0 is this computer's."""
    for candidate in sorted(offsets, key=abs):
        agreeing = [off for off in offsets if abs(off - candidate) <= TOLERANCE]
        if abs(candidate) > TOLERANCE and len(agreeing) > (len(offsets) + 1) / 2:
            return candidate
    return 0.0


def _apart(seconds: float) -> str:
    """Say how far off, in the largest unit that is still exact enough to guess the cause."""
    size, unit = abs(seconds), "s"
    for length, larger in ((60, "min"), (60, "h"), (24, "days")):
        if size < 2 * length:
            break
        size, unit = size / length, larger
    return f"{size:.0f} {unit} {'ahead' if seconds > 0 else 'behind'}"
