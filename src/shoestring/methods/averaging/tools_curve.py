"""What if I cooled down now: the loss of each checkpoint of a run beside that of the average that ends with it."""

from __future__ import annotations

import json
import shutil
import statistics
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from transformers import PretrainedConfig, PreTrainedTokenizerFast

from shoestring import runtime
from shoestring.cost import Cost, flops
from shoestring.data import corpora, tokenizers
from shoestring.data.batches import windows
from shoestring.data.tokens import Tokens, pack, packed
from shoestring.evaluate import facts, lm
from shoestring.evaluate.scores import Pair, Point, Report, Row, Score
from shoestring.methods.averaging.average import Shape, decay_weights
from shoestring.methods.averaging.checkpoints import find, step_of
from shoestring.methods.averaging.doubts import doubts
from shoestring.methods.averaging.merge import merge
from shoestring.models import pretrained

RAW, AVERAGED = "raw", "averaged"
METRIC = "dev loss"


@dataclass
class Curve:
    """The curve of a run; each measured loss is kept in `out`/curve.jsonl the moment it is known."""

    run: Path
    data: str
    out: Path
    count: int
    stride: int
    shape: Shape
    tokens: int
    length: int | None

    def report(self) -> Report:
        """Measure what is not yet measured, and lay both rows side by side. Raises ValueError as `find` and `merge`."""
        found = find(self.run)
        reach = (self.count - 1) * self.stride
        if len(found) <= reach:
            raise ValueError(f"{self.run}: has {len(found)} checkpoints: a window of {self.count} needs {reach + 1}")
        known = self._known()
        for row, step, sources in self._wanted(found, reach):
            if (row, step) not in known:
                known[row, step] = self._measure(sources)
                self._remember(row, step, known[row, step])
        last = found[-1 - reach :: self.stride]
        return self._laid_out(known, [f"The last window: {sentence}" for sentence in doubts(last)])

    def _wanted(self, found: list[Path], reach: int) -> Iterator[tuple[str, int, list[Path]]]:
        for index, path in enumerate(found):
            yield RAW, step_of(path), [path]
            if index >= reach:
                yield AVERAGED, step_of(path), found[index - reach : index + 1 : self.stride]

    def _measure(self, sources: list[Path]) -> dict[str, float]:
        since = time.perf_counter()
        folder = sources[-1]
        if len(sources) > 1:
            folder = self.out / ".curve-average"
            shutil.rmtree(folder, ignore_errors=True)
            # in the type of bf16 files the average of near weights would be rounded away
            merge(sources, folder, decay_weights(len(sources), self.shape), torch.float32)
        model, tokenizer = pretrained.load(str(folder), torch.float32)
        here = runtime.current()
        model.to(here.device)
        text = self._text(tokenizer)
        batches = list(windows(text, self._length(model.config), 16, self.tokens))
        scored = sum(int((batch["labels"] >= 0).sum()) for batch in batches)
        score = lm.loss(model, batches, round(scored * text.bytes_per_token), here.autocast())
        seconds = time.perf_counter() - since
        with flops.counting() as counted:
            lm.loss(model, batches[:1])
        if len(sources) > 1:
            shutil.rmtree(folder)
        assert score.bits_per_byte is not None
        spent = {"seconds": seconds, "flops": float(counted.flops * len(batches))}
        return {"loss": score.loss, "bits_per_byte": score.bits_per_byte, **spent}

    def _text(self, tokenizer: PreTrainedTokenizerFast) -> Tokens:
        """A file by itself is scored whole; of all else, the dev part."""
        if not Path(self.data).is_file():
            return packed(self.data, "dev", tokenizer)
        folder = self.out / f".curve-text-{tokenizers.fingerprint(tokenizer)}-{corpora.fingerprint(self.data)}"
        return Tokens.load(folder) if folder.exists() else pack(corpora.whole(self.data), tokenizer, folder)

    def _length(self, config: PretrainedConfig) -> int:
        context = int(config.max_position_embeddings)
        if self.length is not None and self.length > context:
            raise ValueError(f"--length {self.length}: the model's context is {context} tokens; expected no more")
        return self.length or min(context, 1024)

    def _laid_out(self, known: dict[tuple[str, int], dict[str, float]], notes: list[str]) -> Report:
        rows, points = [], []
        for row in (RAW, AVERAGED):
            steps = sorted(step for name, step in known if name == row)
            last = known[row, steps[-1]]
            scores = {METRIC: Score.of([last["loss"]]), "bits per byte": Score.of([last["bits_per_byte"]])}
            measured = [known[row, step] for step in steps]
            # a run that exists pays nothing more for training, so its points have steps and no costs
            points += [Point(row, 0, s, 0, 0, 0, {METRIC: m["loss"]}) for s, m in zip(steps, measured, strict=True)]
            each = {name: statistics.fmean(m[name] for m in measured) for name in ("flops", "seconds")}
            cost = Cost(**each)
            rows.append(Row(row, row == RAW, scores, cost))
        notes.append("Costs are of one measurement, the averaging included: the training was paid for before.")
        window = f"--count {self.count} --stride {self.stride} --shape {self.shape}"
        window += f" --tokens {self.tokens}" + (f" --length {self.length}" if self.length is not None else "")
        command = f"shoestring averaging curve {self.run} --data {self.data} {window}"
        told = {**facts.gather(command), "window": f"{self.count} checkpoints, {self.stride} apart, {self.shape}"}
        told["text"] = f"{self.data} {corpora.fingerprint(self.data)}"
        pair = Pair(AVERAGED, RAW)
        return Report("averaging", "curve", tuple(rows), tuple(points), (pair,), METRIC, tuple(notes), told)

    def _key(self) -> dict[str, Any]:
        own = {"data": self.data, "count": self.count, "stride": self.stride, "shape": self.shape}
        return {**own, "run": str(self.run.resolve()), "tokens": self.tokens, "length": self.length}

    def _known(self) -> dict[tuple[str, int], dict[str, float]]:
        """What an earlier call measured; a line that a kill tore is measured again."""
        self.out.mkdir(parents=True, exist_ok=True)
        path = self.out / "curve.jsonl"
        known = {}
        for line in path.read_text(encoding="utf-8").splitlines() if path.exists() else ():
            try:
                entry = json.loads(line)
            except json.JSONDecodeError:
                continue
            if entry["key"] != self._key():
                raise ValueError(f"{path}: it holds another curve ({entry['key']}): give another --out")
            known[entry["row"], int(entry["step"])] = entry["measured"]
        return known

    def _remember(self, row: str, step: int, measured: dict[str, float]) -> None:
        with (self.out / "curve.jsonl").open("a", encoding="utf-8") as stream:
            stream.write(json.dumps({"key": self._key(), "row": row, "step": step, "measured": measured}) + "\n")
