"""Inside the headline network: what a whole window says of how its readings move within seconds, and of their levels.

Appliances in stand-by stand at 1 or 2 W and differ only in when the reading moves. So the window's bins are multiplied
with one another, which gives the correlation of their seconds at all lags for the price of one matrix product. Each
number becomes a row of ramps (a piecewise linear encoding: Gorishniy et al., arXiv 2203.05556).

A new network has all ramps of all statistics, a grid. Pruning drops single ramps; what is left is a list, each with the
statistic that it reads, and statistics that no ramp reads are not computed by what is exported (`lean`).
"""

from collections.abc import Sequence

import torch
from torch import nn

LAGS = (1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 12, 14, 16, 18, 20, 22, 24, 26, 28, 30)  # seconds
LEVELS = (0, 1, 2, 3, 4, 5, 6, 7, 8, 10, 13, 17, 22, 30, 40, 55, 75, 100, 150, 200, 300, 500, 800, 1200, 2000)  # watts
LEVELS_EVERY = 8  # seconds: of these the levels are counted
STEPS = (1, 2, 5, 10, 50, 200)  # watts
STEPS_EVERY = 4  # bins: of these the steps are counted
HALFWAY = 5.0  # watts at which the companded power stands halfway between 0 and 1
SIGNALS = 2  # that are correlated: companded power, and whether the reading changes
LEAST_POWER = 0.5  # added to the power by which a correlation is divided, as a sum over the window
RAMPS = 12  # of each statistic
LEAST_GAP = 0.01  # between knots: ramps at readings that repeat must not become steps
# What is added before the logarithm: to a correlation, which may be -1; to a part, which may be 0; to a logarithm
RATIO, PART, LEVEL = 1.1, 0.001, 1.0
CHANGE = 0.05  # to a step of a logarithm from one bin to the next


class Rhythm(nn.Module):
    """Ramps of a window's statistics: [batch, channels, 1, 1] in 0..1, of bins [batch, bins, seconds] in watts.

    logs: how many statistics of each bin the front gives; their means and extremes over the window are told too.
    changes: whether their variance and their steps from bin to bin are told as well.
    rows: of each ramp left, the statistic that it reads; None while all ramps are there and stand in a grid.
    """

    lags: torch.Tensor
    shifts: torch.Tensor
    levels: torch.Tensor
    steps: torch.Tensor
    starts: torch.Tensor
    slopes: torch.Tensor
    rows: torch.Tensor | None

    def __init__(self, bin_seconds: int, logs: int, changes: bool = False) -> None:
        super().__init__()
        self.changes = changes
        self.earlier = bin_seconds // 2  # seconds of a bin that are compared with those after them
        lags = [lag for lag in LAGS if lag < self.earlier]
        parts = SIGNALS + len(STEPS) + len(LEVELS)
        shifts = [RATIO] * (SIGNALS * len(lags)) + [PART] * parts + [LEVEL] * (3 * logs)
        shifts += ([PART] * logs + [CHANGE] * (3 * logs)) if changes else []
        self.register_buffer("lags", torch.tensor([0, *lags]), persistent=False)
        self.register_buffer("shifts", torch.tensor(shifts), persistent=False)
        self.register_buffer("levels", torch.tensor(LEVELS, dtype=torch.float32).reshape(-1, 1), persistent=False)
        self.register_buffer("steps", torch.tensor(STEPS, dtype=torch.float32).reshape(-1, 1), persistent=False)
        self.register_buffer("starts", torch.linspace(-1.0, 1.0, RAMPS).repeat(len(shifts), 1))
        self.register_buffer("slopes", torch.full((len(shifts), RAMPS), RAMPS / 2.0))
        self.register_buffer("rows", None)

    @property
    def channels(self) -> int:
        """Ramps that are left."""
        return self.starts.numel()

    def adapt(self, bins: torch.Tensor, logs: torch.Tensor) -> None:
        """Lay each statistic's knots at quantiles of its values in these windows; before anything is pruned."""
        for row, values in enumerate(self.statistics(bins, logs).T):
            knots = _quantiles(values)
            self.starts[row] = knots[:-1]
            self.slopes[row] = 1.0 / (knots[1:] - knots[:-1])

    def forward(self, bins: torch.Tensor, logs: torch.Tensor) -> torch.Tensor:
        """The ramps; `logs` [batch, statistics, bins] are the front's."""
        found = self.statistics(bins, logs)
        values = found.reshape(*found.shape, 1) if self.rows is None else found.index_select(1, self.rows)
        ramps: torch.Tensor = ((values - self.starts) * self.slopes).clamp(0.0, 1.0)
        return ramps.reshape(-1, self.channels, 1).unsqueeze(2)

    def keep(self, ramps: Sequence[int]) -> None:
        """Drop all ramps but these, numbered in the order of the output."""
        chosen = torch.tensor(ramps)
        rows = torch.arange(len(self.starts)).repeat_interleave(RAMPS) if self.rows is None else self.rows
        self.rows = rows[chosen]
        self.starts, self.slopes = self.starts.flatten()[chosen], self.slopes.flatten()[chosen]

    def lean(self) -> None:
        """Stop computing lags, steps and levels that no ramp reads; the ramps stay what they are."""
        if self.rows is None:
            return
        read = torch.zeros(len(self.shifts), dtype=torch.bool)
        read[self.rows] = True
        correlated, powers, steps, levels, extremes = torch.split(read, self._counts())
        lags = _some(correlated.reshape(SIGNALS, -1).any(0))
        steps, levels = _some(steps), _some(levels)
        kept = torch.cat((lags.repeat(SIGNALS), torch.ones_like(powers), steps, levels, torch.ones_like(extremes)))
        self.lags = torch.cat((self.lags[:1], self.lags[1:][lags]))
        self.steps, self.levels, self.shifts = self.steps[steps], self.levels[levels], self.shifts[kept]
        self.rows = (kept.cumsum(0) - 1)[self.rows]

    def _counts(self) -> list[int]:
        """Statistics of each kind, in the order of `statistics`: correlations, powers, steps, levels, extremes."""
        before = [SIGNALS * (len(self.lags) - 1), SIGNALS, len(self.steps), len(self.levels)]
        return [*before, len(self.shifts) - sum(before)]

    def statistics(self, bins: torch.Tensor, logs: torch.Tensor) -> torch.Tensor:
        """[batch, n], all behind a logarithm: nothing before it is rounded to INT8."""
        moves = bins[:, :, 1:] - bins[:, :, :-1]
        extremes = (logs.mean(2), logs.amax(2), logs.amin(2))
        changes = _changes(logs) if self.changes else ()
        found = torch.cat((*self._correlations(bins, moves), *self._parts(bins, moves), *extremes, *changes), dim=1)
        return torch.log(found + self.shifts)

    def _correlations(self, bins: torch.Tensor, moves: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Of each signal at each lag [batch, SIGNALS * lags], and its power [batch, SIGNALS]."""
        batch, count, width = moves.shape
        companded = bins[:, :, 1:] / (bins[:, :, 1:] + HALFWAY)
        centered = companded - companded.mean(2, keepdim=True)
        signals = torch.stack((centered, moves.abs().clamp(max=1.0)), dim=1)
        products = torch.matmul(signals[:, :, :, : self.earlier].transpose(2, 3), signals)  # summed over bins
        # Read in rows one longer than they are, the diagonals become columns: one for each lag.
        rows = self.earlier - 1
        columns = products.flatten(2)[:, :, : rows * (width + 1)].reshape(batch, SIGNALS, rows, width + 1)
        lagged = columns.sum(2).index_select(2, self.lags)
        power = lagged[:, :, :1]
        ratios = (lagged[:, :, 1:] / (power + LEAST_POWER)).clamp(-1.0, 1.0)
        return ratios.flatten(1), power.flatten(1) / (rows * count)

    def _parts(self, bins: torch.Tensor, moves: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Part of the seconds with a step of so many watts, and above so many: [batch, steps], [batch, levels]."""
        steps = moves[:, ::STEPS_EVERY].abs().flatten(1).unsqueeze(1) - (self.steps - 1.0)
        above = bins[:, :, ::LEVELS_EVERY].flatten(1).unsqueeze(1) - self.levels
        return steps.clamp(0.0, 1.0).mean(2), above.clamp(0.0, 1.0).mean(2)


def _changes(logs: torch.Tensor) -> tuple[torch.Tensor, ...]:
    """Variance over bins, mean step from bin to bin, largest rise and largest fall: each [batch, statistics]."""
    steps = logs[:, :, 1:] - logs[:, :, :-1]
    centered = logs - logs.mean(2, keepdim=True)
    variance = (centered * centered).mean(2)
    return variance, steps.abs().mean(2), steps.amax(2).clamp(min=0.0), (-steps).amax(2).clamp(min=0.0)


def _some(read: torch.Tensor) -> torch.Tensor:
    """Which to compute: those that are read, and never none, since an empty tensor is no graph."""
    return read if read.any() else torch.arange(len(read)) == 0


def _quantiles(values: torch.Tensor) -> torch.Tensor:
    """RAMPS + 1 rising knots with an equal part of the values between each two, as far as the gaps allow."""
    ordered = values.sort().values
    knots = ordered[torch.linspace(0, len(ordered) - 1, RAMPS + 1).long()].clone()
    for index in range(1, len(knots)):
        knots[index] = torch.maximum(knots[index], knots[index - 1] + LEAST_GAP)
    return knots
