"""An experiment from its start to its report: its folder held, what it cost booked, its rows written and shown."""

from __future__ import annotations

import os
import shlex
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from shoestring.config import Recipe
    from shoestring.cost import Ledger
    from shoestring.evaluate.scores import Report


def carry_out(recipe: Recipe, folder: Path, work: Callable[[Ledger], Report]) -> None:
    """Do the work of a recipe in its folder, where it goes on if it was stopped; write and show the report.

    Of several processes that a launcher started, the first writes and shows. Raises ValueError where the folder is
    another recipe's, or held by another process.
    """
    from shoestring import config
    from shoestring.cost import Ledger
    from shoestring.evaluate import facts, outcome, report

    ledger, first = Ledger(), int(os.environ.get("RANK", "0")) == 0
    with outcome.opened(folder, config.dump(recipe)):
        told = facts.gather(f"shoestring {shlex.join(sys.argv[1:])}")  # now: files may change while it runs
        if first:
            told = outcome.kept_facts(folder, told)
        found = work(ledger)
        if first:
            found = replace(found, facts={**told, **found.facts})
            outcome.write_ledger(ledger, folder)
            report.write(found, folder)
            show(found, folder)


def show(found: Report, folder: Path) -> None:
    """Print a report's tables, its savings, and where its page is."""
    from rich.console import Console

    from shoestring.evaluate import report
    from shoestring.evaluate.savings import savings

    console = Console(width=report.terminal_width())
    for group in found.groups():
        console.print(report.table(found, group))
    for sentence in savings(found):
        console.print(f"• {sentence}", highlight=False)
    console.print(f"\nThe report: {folder / 'report.html'}", highlight=False, soft_wrap=True)
