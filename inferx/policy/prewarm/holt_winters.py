"""Prewarming by Holt-Winters: level, trend and season of the arrivals a minute.

Source: Winters, "Forecasting Sales by Exponentially Weighted Moving Averages", Management Science
6(3), 1960, pp. 324-342, in its additive form as Brutlag uses it, "Aberrant Behavior Detection in
Time Series for Network Monitoring", LISA 2000, pp. 139-146, whose constants RRDtool made the usual
ones (repository oetiker/rrdtool-1.x, `doc/rrdcreate.pod`, its example of HWPREDICT): alpha 0.1,
beta 0.0035, gamma 0.1, a season of a day.
    l' = alpha (y - s) + (1 - alpha) (l + b)      s is the season's value one season ago
    b' = beta (l' - l) + (1 - beta) b
    s' = gamma (y - l') + (1 - gamma) s
    forecast, h periods ahead: l + h b + s one season before that
As many pods as the rounded forecast needs slots, its requests taken to come at once.

Differs: periods of one minute, 1,440 a season, instead of five; it starts from the first period's
count without trend or season, and the first season takes its values as they come, gamma 1, where
textbooks fit starting values to the first seasons; the forecast is the larger of that of the
present minute and of the next, so that pods are up when it begins.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.random import Generator

from inferx.policy import F64, NS_PER_S, ClusterView, Demote, PolicyBundle, Promote, plain
from inferx.policy.parts.bringing import bring_up, pods_short
from inferx.policy.parts.counts import PeriodCounts

__all__ = ["HoltWinters", "HoltWintersPrewarm", "bundle"]


@dataclass(slots=True)
class HoltWinters:
    """Additive smoothing of many series at once.

    Attributes:
        level: Shape (series,).
        trend: Growth of the level a period. Shape (series,).
        season: What each period of the season adds. Shape (series, periods).
        seen: Periods learned; the next is period `seen` modulo the season.
        primed: Whether starting values were given; if not, the first season sets them.
    """

    alpha: float
    beta: float
    gamma: float
    level: F64
    trend: F64
    season: F64
    seen: int = 0
    primed: bool = False

    def grow(self, series: int) -> None:
        """Make room for so many series; a new one has been silent until now."""
        more = series - len(self.level)
        if more > 0:
            self.level = np.append(self.level, np.zeros(more))
            self.trend = np.append(self.trend, np.zeros(more))
            self.season = np.vstack((self.season, np.zeros((more, self.season.shape[1]))))

    def learn(self, y: F64) -> None:
        """Take in one period. Shape (series,)."""
        at = self.seen % self.season.shape[1]
        first = not self.primed and self.seen < self.season.shape[1]
        if self.seen == 0 and not self.primed:
            self.level = y.astype(np.float64)
        old, was = self.season[:, at], self.level
        self.level = self.alpha * (y - old) + (1 - self.alpha) * (was + self.trend)
        self.trend = self.beta * (self.level - was) + (1 - self.beta) * self.trend
        gamma = 1.0 if first else self.gamma
        self.season[:, at] = gamma * (y - self.level) + (1 - gamma) * old
        self.seen += 1

    def forecast(self, ahead: int) -> F64:
        """Return what is expected `ahead` periods from the latest, 1 to a season. (series,)."""
        season = self.season[:, (self.seen - 1 + ahead) % self.season.shape[1]]
        expected: F64 = self.level + ahead * self.trend + season
        return expected


@dataclass(slots=True)
class HoltWintersPrewarm:
    """Brings up pods for the arrivals that level, trend and season foretell."""

    counts: PeriodCounts
    model: HoltWinters
    moves: int

    def observe(self, now_ns: int, event: object) -> None:
        """Count arrivals."""
        self.counts.observe(now_ns, event)

    def promote(self, view: ClusterView, rng: Generator) -> Sequence[Promote | Demote]:
        """Return a promotion to HBM for the pods that lack, the most asked first."""
        functions = len(view.functions.specs)
        self.model.grow(functions)
        for counted in self.counts.ended(view.now_ns, functions):
            self.model.learn(counted)
        if not self.model.seen:
            return ()
        expected = np.maximum(self.model.forecast(1), self.model.forecast(2))
        short = pods_short(expected, view, moves=self.moves)
        return bring_up(short, view, moves=self.moves)


def bundle(
    period_s: int = 60,
    season: int = 1_440,
    alpha: float = 0.1,
    beta: float = 0.0035,
    gamma: float = 0.1,
    moves: int = 4,
) -> PolicyBundle:
    """Return the bundle with Brutlag's constants.

    Args:
        period_s: Length of a period, 1 to 86,400.
        season: Periods of a season, 2 to 100,000.
        alpha: Weight of the present in the level, 0 to 1.
        beta: Weight of the present in the trend, 0 to 1.
        gamma: Weight of the present in the season, 0 to 1.
        moves: Promotions every 10 s, 0 to 1,000.

    Raises:
        ValueError: A setting is out of its range.
    """
    if not 1 <= period_s <= 86_400:
        raise ValueError(f"period_s is {period_s}; expected 1 to 86400")
    if not 2 <= season <= 100_000:
        raise ValueError(f"season is {season}; expected 2 to 100000")
    for name, weight in (("alpha", alpha), ("beta", beta), ("gamma", gamma)):
        if not 0 <= weight <= 1:
            raise ValueError(f"{name} is {weight:g}; expected 0 to 1")
    if not 0 <= moves <= 1_000:
        raise ValueError(f"moves is {moves}; expected 0 to 1000")
    none = np.zeros(0)
    model = HoltWinters(alpha, beta, gamma, none, none, np.zeros((0, season)))
    prewarm = HoltWintersPrewarm(PeriodCounts(period_s * NS_PER_S, most=season), model, moves)
    return replace(
        plain.bundle(),
        name="holt-winters",
        prewarm=prewarm,
        observers=(prewarm,),
        control_period_ns=min(period_s, 10) * NS_PER_S,
        settle_ns=60 * period_s * NS_PER_S,
    )
