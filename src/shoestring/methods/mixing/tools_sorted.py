"""Tables of samples sorted into skills: what each skill holds, and how much of the true ones was recovered."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.table import Table

    from shoestring.methods.mixing.documents import Sample
    from shoestring.methods.mixing.tools_sort import Found, Truth
    from shoestring.methods.mixing.tools_sort_training import By

LETTERS = 60  # of a sample in the table


def skills_table(samples: Sequence[Sample], found: Found, truth: Truth | None) -> Table:
    """A row a skill: how many samples, which true skill is most of it, and those nearest to its middle."""
    from rich import box
    from rich.table import Table
    from rich.text import Text

    drawn = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False)
    for name in ("skill", "samples"):
        drawn.add_column(name, justify="right")
    if truth is not None:
        drawn.add_column(f"most of {truth.field}")
    drawn.add_column("typical")
    for skill, nearest in enumerate(found.typical):
        members = [place for place, one in enumerate(found.skills) if one == skill]
        row = [str(skill), f"{len(members):,}"]
        if truth is not None:
            value, count = Counter(truth.values[place] for place in members).most_common(1)[0]
            row.append(f"{value} {count / len(members):.0%}")
        row.append("\n".join(_short(samples[place].text) for place in nearest))
        drawn.add_row(*map(Text, row))
    return drawn


def recovered_table(found: Found, truth: Truth, by: By) -> Table:
    """A row a way: the share of samples it puts right, beside what its groups give in 100 shuffles."""
    from rich import box
    from rich.table import Table
    from rich.text import Text

    title = f"Compared with {truth.field}, of {len(set(truth.values))} values, which was not used to sort"
    drawn = Table(title=title, box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False)
    drawn.title_justify = drawn.caption_justify = "left"
    drawn.add_column("by")
    for name in ("recovered", "by chance", "by chance, highest", "adjusted Rand"):
        drawn.add_column(name, justify="right")
    for way, one in found.recovered.items():
        name = f"{way} (written)" if way is by else way
        if isinstance(one, str):
            drawn.add_row(name, *"––––")
            drawn.caption = Text(f"{way}: {one}")
        else:
            shares = (one.share, *one.chance)
            drawn.add_row(name, *(f"{share:.1%}" for share in shares), f"{one.adjusted_rand:.3f}")
    return drawn


def _short(text: str) -> str:
    """The first letters on one line; what would steer a terminal is left out."""
    line = " ".join(text[: 4 * LETTERS].split())
    return "".join(letter for letter in line if letter.isprintable())[:LETTERS]
