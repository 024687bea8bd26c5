"""The rows of the experiment over decoders: a group a draw, a row a proxy, beside chance and training everything."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean

from shoestring.cost import Cost
from shoestring.evaluate.scores import Pair, Point, Report, Row, Scatter, Score
from shoestring.methods.search.ranks import Tau, difference_interval, kendall_interval
from shoestring.methods.search.recipe_decoders_candidate import Candidate, mean
from shoestring.methods.search.recipe_schema import METHODS

FREE, FIXED = "free size", "fixed size"
TEST, REGRET, TAU, LOW, HIGH = "test loss", "regret", "τ", "from", "to"
RANDOM, ALL, SIZE = "random", "train all", "parameters"
_MANY = 10_000  # what is counted in millions on an axis
_ENOUGH = 10  # architectures, below which a bootstrap interval tells nothing

_SAID = (
    "Test loss is of the trained architecture that a row ranks first, nats a token, mean ± sd over the seeds of the "
    "training; of architectures ranked alike, their mean. Regret is that loss less the lowest mean one of the group.",
    "The learning rate of each architecture, and what train all takes, are chosen on dev.",
    "τ is Kendall's, positive where a higher score goes with a lower test loss; scores and losses are means over the "
    "seeds. From and to are its 95 % percentile bootstrap interval over architectures.",
    "A proxy's cost is scoring its whole group, from every seed, and training one architecture at each learning rate "
    "from one seed; random trains one, train all every one.",
)


def report(
    name: str, proxies: Sequence[str], groups: Mapping[str, Sequence[Candidate]], facts: Mapping[str, str]
) -> Report:
    """Rows, curves, pairs and scatters of all groups. All proxies but the METHODS are their twins."""
    rows: list[Row] = []
    points: list[Point] = []
    notes: list[str] = []
    for title, candidates in groups.items():
        group = Group(title, candidates)
        for pick in group.picks(proxies):
            rows.append(group.row(pick))
            points += group.points(pick)
        notes += [*group.negative(proxies), *group.told()]
    pairs = [
        Pair(f"{method}, {title}", f"{twin}, {title}")
        for title in groups
        for method in METHODS
        for twin in (SIZE, RANDOM)
        if method in proxies and twin in (*proxies, RANDOM)
    ]
    return Report(
        "search",
        name,
        tuple(rows),
        tuple(points),
        tuple(pairs),
        TEST,
        (*notes, *_SAID),
        facts,
        scatters=tuple(_scatters(proxies, groups)),
    )


@dataclass(frozen=True)
class Pick:
    """What a way to choose came to: the architectures it cannot tell apart, what choosing took, how well it orders."""

    label: str
    found: Sequence[Candidate]
    before: Cost
    tau: Tau | None = None


@dataclass(frozen=True)
class Group:
    """The architectures of one draw."""

    title: str
    candidates: Sequence[Candidate]

    def picks(self, proxies: Sequence[str]) -> list[Pick]:
        """Of each proxy, of chance, and of training every one, which pays for the others before its own."""
        found = []
        for proxy in proxies:
            best = max(one.said[proxy].value for one in self.candidates)
            first = [one for one in self.candidates if one.said[proxy].value == best]
            scoring = sum((one.said[proxy].cost for one in self.candidates), Cost())
            found.append(Pick(proxy, first, scoring, self.tau(proxy)))
        best_on_dev = min(self.candidates, key=lambda one: one.dev)
        others = sum((one.cost for one in self.candidates if one is not best_on_dev), Cost())
        return [*found, Pick(RANDOM, self.candidates, Cost()), Pick(ALL, [best_on_dev], others)]

    def row(self, pick: Pick) -> Row:
        lowest = min(self.candidates, key=lambda one: one.test)
        losses = {seed: fmean(one.tested(seed) for one in pick.found) for seed in lowest.seeds}
        scores = {
            TEST: Score.of(losses.values()),
            REGRET: Score.of(loss - lowest.tested(seed) for seed, loss in losses.items()),
        }
        if pick.tau is not None:
            told = {TAU: pick.tau.value, LOW: pick.tau.low, HIGH: pick.tau.high}
            scores |= {metric: Score.of([value]) for metric, value in told.items()}
        cost = pick.before + mean([one.cost for one in pick.found])
        return Row(f"{pick.label}, {self.title}", pick.label not in METHODS, scores, cost, self.title, pick.label)

    def points(self, pick: Pick) -> list[Point]:
        """The curve of what was picked, by those that are compared in pairs: with all of them none could be seen."""
        if pick.label not in (*METHODS, SIZE, RANDOM):
            return []
        found = []
        for seed in pick.found[0].seeds:
            for along in zip(*(one.along(seed) for one in pick.found), strict=True):
                cost = pick.before + mean([at.cost for at in along])
                test = {TEST: fmean(at.test for at in along)}
                row = f"{pick.label}, {self.title}"
                found.append(Point(row, seed, along[0].step, cost.tokens, cost.flops, cost.seconds, test))
        return found

    def tau(self, proxy: str) -> Tau | None:
        """None where the proxy orders nothing: it says the same of all, say."""
        return _if_ordered(lambda: kendall_interval(self._values(proxy), self._truth))

    def negative(self, proxies: Sequence[str]) -> list[str]:
        """Which proxies order better than size does, and which better than chance; plainly where none."""
        told = []
        taus = {proxy: self.tau(proxy) for proxy in proxies}
        for proxy, tau in taus.items():
            lost = self._values(proxy).count(-math.inf)
            if lost:
                told.append(
                    f"{self.title}: {proxy} scores {lost} of {len(self.candidates)} architectures -inf, which it ranks "
                    "alike, below all others."
                )
            if tau is None:
                told.append(f"{self.title}: {proxy} orders nothing, so it has no τ.")
        if len(self.candidates) < _ENOUGH:
            told.append(f"{self.title}: {len(self.candidates)} architectures are too few to tell proxies apart.")
            return told
        sure = [proxy for proxy, tau in taus.items() if tau is not None and tau.low > 0]
        below = [proxy for proxy, tau in taus.items() if tau is not None and tau.high < 0]
        told.append(f"{self.title}: τ lies above zero with its whole interval for {_listed(sure) or 'no proxy'}.")
        if below:
            told.append(f"{self.title}: τ lies below zero with its whole interval for {_listed(below)}.")
        if SIZE not in proxies or taus[SIZE] is None:
            return told
        apart = {proxy: self._against_size(proxy) for proxy in proxies if proxy != SIZE and taus[proxy] is not None}
        better = [
            f"{proxy} ({_signed(found)})" for proxy, found in apart.items() if found is not None and found.low > 0
        ]
        said = f"τ is above that of the parameter count, beyond the interval, for {_listed(better) or 'no proxy'}"
        held = [
            f"{method} less {SIZE} is {_signed(difference)}"
            for method in METHODS
            if (difference := apart.get(method)) is not None
        ]
        return [*told, f"{self.title}: {'; '.join([said, *held])}, paired over architectures."]

    def told(self) -> list[str]:
        """The sizes, the learning rates and the noise that the figures are to be read against."""
        sizes = [one.parameters for one in self.candidates]
        rates = [one.rate for one in self.candidates]
        counts = ", ".join(f"{rate:g} for {rates.count(rate)}" for rate in sorted(set(rates)))
        losses = [one.test for one in self.candidates]
        said = (
            f"{self.title}: {len(sizes)} architectures of {min(sizes):,} to {max(sizes):,} parameters, embedding and "
            f"head included; their test losses span {min(losses):.3f} to {max(losses):.3f}; the best learning rate "
            f"is {counts}."
        )
        spreads = [Score.of(one.tested(seed) for seed in one.seeds) for one in self.candidates]
        noise = math.sqrt(fmean(score.sd**2 for score in spreads))
        across = Score.of(losses).sd
        if spreads[0].n > 1:
            said += (
                f" The sd of a loss is {noise:.3f} from seed to seed, {across:.3f} from architecture to architecture."
            )
        lost = [text for one in self.candidates for text in one.diverged]
        return [said, *(f"{self.title}: diverged and counted as not chosen: {text}." for text in lost)]

    @property
    def _truth(self) -> list[float]:
        return [-one.test for one in self.candidates]

    def _values(self, proxy: str) -> list[float]:
        return [one.said[proxy].value for one in self.candidates]

    def _against_size(self, proxy: str) -> Tau | None:
        return _if_ordered(lambda: difference_interval(self._values(proxy), self._values(SIZE), self._truth))


def _scatters(proxies: Sequence[str], groups: Mapping[str, Sequence[Candidate]]) -> list[Scatter]:
    """A panel a proxy: the test loss of every architecture against its score."""
    found = []
    for proxy in proxies:
        taus = {title: Group(title, candidates).tau(proxy) for title, candidates in groups.items()}
        told = ", ".join(
            f"{title.split()[0]} {tau.value:.2f}" if tau else f"{title.split()[0]} –" for title, tau in taus.items()
        )
        every = [(title, one.said[proxy].value, one.test) for title, group in groups.items() for one in group]
        finite = [point for point in every if math.isfinite(point[1])]
        if not finite:
            continue
        many = max(abs(value) for _, value, _ in finite) >= _MANY
        shown = tuple((title, value / 1e6 if many else value, test) for title, value, test in finite)
        says = f"Test loss against {proxy}, {len(every)} architectures; τ: {told}."
        if len(shown) < len(every):
            says += f" {len(every) - len(shown)} score -inf and have no place."
        found.append(Scatter(f"{proxy}: τ {told}", f"{proxy}, millions" if many else proxy, TEST, shown, says))
    return found


def _if_ordered(count: Callable[[], Tau]) -> Tau | None:
    """Nothing where all are alike, or too few."""
    try:
        return count()
    except ValueError:
        return None


def _listed(names: Sequence[str]) -> str:
    return " and ".join(filter(None, (", ".join(names[:-1]), *names[-1:])))


def _signed(tau: Tau) -> str:
    return f"{tau.value:+.2f} [{tau.low:+.2f}, {tau.high:+.2f}]"
