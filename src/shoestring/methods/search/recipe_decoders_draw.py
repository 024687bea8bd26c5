"""Which decoders are trained: some spread evenly over sizes, some all of one size."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from random import Random

from shoestring.methods.search.decoders import Decoder
from shoestring.methods.search.decoders import Decoders as Space
from shoestring.methods.search.recipe_schema import Decoders


@dataclass(frozen=True)
class Drawn:
    """Architectures by their text, in order of size, and the space that builds them; a text may be in both groups."""

    space: Space
    free: tuple[str, ...]
    fixed: tuple[str, ...]

    @property
    def every(self) -> tuple[str, ...]:
        """Each once, the largest first."""
        return tuple(sorted(dict.fromkeys((*self.free, *self.fixed)), key=self.parameters, reverse=True))

    def parameters(self, text: str) -> int:
        return self.space.parameters(self.space.decode(text))


def drawn(chosen: Decoders, vocabulary: int, random: Random) -> Drawn:
    """Draw both groups. Raises ValueError where the choices do not hold enough decoders of the sizes asked for."""
    heads = {width // head for width in chosen.widths for head in chosen.head_widths if width % head == 0}
    near = chosen.tolerance * chosen.fixed_parameters
    budget = math.floor(chosen.fixed_parameters - near), math.ceil(chosen.fixed_parameters + near)
    space = Space(
        vocabulary,
        chosen.length,
        tuple(chosen.layers),
        tuple(chosen.widths),
        tuple(sorted(heads)),
        tuple(chosen.ratios),
        min_parameters=min(budget[0], chosen.parameters[0]),
        max_parameters=max(budget[1], chosen.parameters[1]),
    )
    sizes = {
        architecture: space.parameters(architecture)
        for architecture in space.members
        if architecture.width // architecture.heads in chosen.head_widths
    }
    free = [one for one, size in sizes.items() if chosen.parameters[0] <= size <= chosen.parameters[1]]
    fixed = [one for one, size in sizes.items() if budget[0] <= size <= budget[1]]
    for name, found, (least, most) in (("free", free, chosen.parameters), ("fixed", fixed, budget)):
        wanted = getattr(chosen, name)
        if len(found) < wanted:
            raise ValueError(
                f"{name} is {wanted}, but these choices hold {len(found)} decoders of {least:,} to {most:,} "
                "parameters: give more choices, or ask for fewer"
            )
    spread = evenly(free, [sizes[one] for one in free], chosen.free, random)
    alike = various(fixed, chosen.fixed, random)
    texts = [[space.encode(one) for one in sorted(group, key=sizes.__getitem__)] for group in (spread, alike)]
    return Drawn(space, tuple(texts[0]), tuple(texts[1]))


def evenly(members: Sequence[Decoder], sizes: Sequence[int], count: int, random: Random) -> list[Decoder]:
    """So many different members, one at random in each of `count` bands of equal width in the logarithm of the size.

    An empty band gives the member nearest to its middle of those that are left, so that no part of the range is bare.
    """
    low, high = math.log(min(sizes)), math.log(max(sizes))
    width = (high - low) / count
    left = dict(zip(members, map(math.log, sizes), strict=True))
    found: list[Decoder] = []
    for band in range(count):
        start, last = low + band * width, band == count - 1
        inside = [one for one, size in left.items() if start <= size and (last or size < start + width)]
        middle = start + width / 2
        one = random.choice(inside) if inside else min(left, key=lambda other: abs(left[other] - middle))
        del left[one]
        found.append(one)
    return found


def various(members: Sequence[Decoder], count: int, random: Random) -> list[Decoder]:
    """So many different members at random; two that differ in their heads alone only where there are no others."""
    shapes: Counter[tuple[int, int, int]] = Counter()
    turns: dict[Decoder, int] = {}
    for one in random.sample(members, len(members)):
        shape = one.layers, one.width, one.inner
        turns[one] = shapes[shape]
        shapes[shape] += 1
    return sorted(turns, key=turns.__getitem__)[:count]
