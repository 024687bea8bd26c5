"""A saved model's scores, of every kind that is asked for."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from shoestring import runtime
from shoestring.data.batches import windows
from shoestring.data.tokens import packed
from shoestring.evaluate import lm
from shoestring.evaluate.choices import choose, read_questions
from shoestring.evaluate.harness import harness
from shoestring.models import pretrained

_TOKENS = 262144


def scores(
    model: str, text: str | None, questions: Path | None, tasks: Sequence[str], include: Path | None
) -> Iterator[tuple[str, float]]:
    """Names and values, one after the other as they are known.

    text       a source whose dev part is scored, at most 262,144 tokens of it, in windows of the model's context
    questions  JSON lines of `context`, `options` and `answer`
    tasks      of lm-eval-harness, or task files; `include` is a folder of further ones
    Raises ValueError where nothing is asked for, and as the parts do.
    """
    if text is None and questions is None and not tasks:
        raise ValueError("nothing to score: give --text, --questions or --task")
    if text is not None or questions is not None:
        found, tokenizer = pretrained.load(model)
        here = runtime.current()
        found.to(here.device)
        if text is not None:
            tokens = packed(text, "dev", tokenizer)
            length = min(int(found.config.max_position_embeddings), 1024)
            batches = list(windows(tokens, length, 8, _TOKENS))
            scored = sum(int((batch["labels"] >= 0).sum()) for batch in batches)
            result = lm.loss(found, batches, round(scored * tokens.bytes_per_token), here.autocast())
            yield "loss, nats per token", result.loss
            yield "bits per byte", float(result.bits_per_byte or 0)
        if questions is not None:
            chosen = choose(found, tokenizer, read_questions(questions))
            yield "accuracy", chosen.accuracy
            yield "accuracy, normalised by bytes", chosen.accuracy_normalised
    if tasks:
        for task, metrics in harness(model, list(tasks), include).items():
            for metric, value in metrics.items():
                yield f"{task} {metric}", value
