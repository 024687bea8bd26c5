"""Self-consistency: of several answers to one question, the label that most of them gave (Wang et al. 2023)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from shoestring.methods.rationale import labels
from shoestring.methods.rationale.parse import Parsed


@dataclass(frozen=True)
class Vote:
    """What a teacher's samples came to.

    label      the label of most; None where no sample could be read
    rationale  the reason of the first sample that voted for it
    agreement  the part of all samples that were asked for, unreadable and missing ones too, that voted for it
    votes      how many samples could vote
    """

    label: str | None
    rationale: str | None
    agreement: float
    votes: int


def vote(
    samples: Sequence[Parsed], options: Sequence[str] = (), *, asked: int | None = None, expression: bool = False
) -> Vote:
    """The majority's label; of labels that as many gave, the one given first. Samples with problems do not vote.

    asked       samples that were asked for, of which some may not have come; as many as came where None
    expression  whether labels are arithmetic
    Expressions of one value are one label, in the writing of the first. Raises ValueError where there is no sample.
    """
    if not samples:
        raise ValueError("no sample to vote: expected at least one")
    parties: list[list[Parsed]] = []
    for sample in samples:
        if sample.problem is not None or sample.label is None:
            continue
        for party in parties:
            if party[0].label is not None and labels.same(party[0].label, sample.label, options, expression):
                party.append(sample)
                break
        else:
            parties.append([sample])
    if not parties:
        return Vote(None, None, 0.0, 0)
    won = max(parties, key=len)  # the first of equals
    return Vote(won[0].label, won[0].rationale, len(won) / (asked or len(samples)), sum(map(len, parties)))
