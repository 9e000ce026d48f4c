"""Linear axes of radii that one far curve does not squeeze: beyond a marked place they run faster."""

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import FixedLocator, MaxNLocator

# A curve is far where it ends so many times farther out than the next one.
FAR = 3.0
# Where the axis is broken, and what is left of a panel's width beyond it.
MARGIN, LEFT = 1.12, 0.25
TICKS = 4
BROKEN = "Beyond a dashed line the radius axis is compressed."


def knee_of(ends: Sequence[float]) -> float | None:
    """Return the radius from which an axis is compressed, None where no curve ends far beyond all others."""
    *_, second, last = [0.0, *sorted(ends)] if len(ends) else [0.0, 0.0]
    return MARGIN * second if second > 0 and last > FAR * second else None


def linear_radii(ax: Axes, ends: Sequence[float]) -> bool:
    """Let the x axis run from 0 to the last of the ends; return whether it is compressed beyond a knee.

    ends: the radius at which each curve of the panel ends.
    """
    end, knee = max(ends) * 1.03, knee_of(ends)
    if knee is None:
        ax.set_xlim(0, end)
        ax.xaxis.set_major_locator(MaxNLocator(TICKS + 1))
        return False
    places = ([0.0, knee, end], [0.0, 1 - LEFT, 1.0])
    ax.set_xscale(
        "function", functions=(lambda r: np.interp(r, *places), lambda s: np.interp(s, *places[::-1]))
    )
    ax.set_xlim(0, end)
    near = [tick for tick in MaxNLocator(TICKS).tick_values(0, knee) if 0 <= tick <= 0.95 * knee]
    far = [tick for tick in MaxNLocator(2).tick_values(knee, end) if 1.2 * knee < tick <= end]
    ax.xaxis.set_major_locator(FixedLocator([*near, *far[-1:]]))
    ax.axvline(knee, color="0.35", linestyle=(0, (3, 2)), linewidth=0.8, zorder=1)
    return True
