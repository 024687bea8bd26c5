"""Tokens a second and memory of `train` beside a bare PyTorch loop and the Hugging Face Trainer. Ratios come last.

    python benchmarks/engine.py --json results/benchmarks/engine.json

All train the same model from the same weights, on the same windows of the built-in corpus in the same order, with the
same AdamW groups, schedule, clipping and precision, on the accelerator where there is one. Where their losses are not
the same at the same steps, the comparison is void and this script fails.

In each round every contender has a fresh process. After the warm-up they take turns of a few steps, one at work while
the others wait, so that what else the machine does falls on all alike. A round's ratio is the median over its turns, of
which each is compared with the other's of the same number; what is printed is the median over the rounds.

`ours` has its ledger on and keeps each step's loss by a hook, as the bare loop does by its `loss.item()`. `ours, plain`
has neither ledger nor hook. The others add one hook to `ours`, whose own seconds are clocked apart; `Latest` claims the
memory of its copies meanwhile, so that this is its dearest time. The Trainer gets its windows ready-made, logs nothing
and saves nothing. Peak memory is what training added to the process (resident; allocated, on an accelerator).
"""

from __future__ import annotations

import argparse
import json
import math
import os
import shlex
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch.optim.lr_scheduler import LambdaLR
from transformers import PreTrainedModel, Trainer, TrainerCallback, TrainingArguments

from shoestring import runtime
from shoestring.cost import Ledger
from shoestring.cost.ledger import peak_bytes, reset_peak_bytes
from shoestring.data.batches import TokenBatches
from shoestring.data.tokenizers import byte_tokenizer
from shoestring.data.tokens import Tokens, packed
from shoestring.evaluate.facts import gather
from shoestring.methods.averaging.ema import Ema
from shoestring.methods.averaging.latest import Latest
from shoestring.models import presets
from shoestring.train.hooks import Every, Log
from shoestring.train.loop import train
from shoestring.train.objectives import next_token
from shoestring.train.optim import adamw, constant
from shoestring.types import Hook, Run

BATCH, LENGTH = 8, 128  # those of the averaging room's recipes
WARMUP, TURN = 10, 5  # steps
RATE, DECAY, BETAS, CLIP = 1e-3, 0.1, (0.9, 0.95), 1.0
# well above what rounding alone parts equal runs by
TOLERANCE = {"fp32": 1e-3, "bf16": 2e-2}
MB = 1_000_000
WAITING, ANSWER = "waiting for a turn", "answer: "


@dataclass
class Work:
    """What each contender is given, and what it leaves.

    wait     returns when it is this contender's turn
    losses   the loss after a step, nats per target
    seconds  a step's, in each turn after the warm-up
    """

    model: PreTrainedModel
    batches: TokenBatches
    last: int
    precision: str
    device: torch.device
    wait: Callable[[], object]
    losses: dict[int, float] = field(default_factory=dict)
    seconds: list[float] = field(default_factory=list)
    hook_seconds: float = 0.0
    started: float = 0.0

    @property
    def ends(self) -> list[int]:
        """The steps after which a turn ends: the warm-up is the first."""
        return [*range(WARMUP, self.last, TURN), self.last]

    def clock(self, step: int) -> None:
        """To be called after each step."""
        if step not in self.ends:
            return
        if step > WARMUP:
            self.seconds.append((now() - self.started) / (step - max(end for end in self.ends if end < step)))
        if step < self.last:
            self.wait()
            self.started = now()


def main() -> None:
    cores = len(os.sched_getaffinity(0)) if "sched_getaffinity" in dir(os) else os.cpu_count() or 1
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", nargs="+", default=["neox-1m", "neox-12m"], help="presets")
    parser.add_argument("--steps", type=int, default=100, help=f"clocked, after {WARMUP} of warm-up")
    parser.add_argument("--rounds", type=int, default=5, help="the median counts")
    parser.add_argument("--threads", type=int, default=cores)
    parser.add_argument("--precision", choices=("fp32", "bf16"), default="bf16")
    parser.add_argument("--json", type=Path, help="keep the rows here")
    parser.add_argument("--child", choices=CONTENDERS, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    for name in ("steps", "rounds", "threads"):
        if getattr(arguments, name) < 1:
            parser.error(f"--{name} is {getattr(arguments, name)}: expected one or more")
    if arguments.child:
        answer = measure(arguments.child, arguments.model[0], arguments, wait)
        print(f"\n{ANSWER}{json.dumps(answer)}", flush=True)
        return
    rows = [row for model in arguments.model for row in compare(model, arguments)]
    show(rows)
    if arguments.json:
        keep(arguments.json, rows)


def compare(model: str, arguments: argparse.Namespace) -> list[dict[str, Any]]:
    """One row a contender, over all rounds. Raises RuntimeError where they did not compute the same losses."""
    tokens()  # packed once, before anything is clocked
    rounds = []
    for number in range(arguments.rounds):
        rounds.append(one_round(model, arguments))
        check([rounds[0]["bare loop"], *rounds[-1].values()], arguments.precision)
        rates = ", ".join(f"{name} {rate(one):,.0f}" for name, one in rounds[-1].items())
        print(f"{model}, round {number + 1}, tokens/s: {rates}", file=sys.stderr, flush=True)
    return [row(name, model, rounds, arguments) for name in CONTENDERS]


def one_round(model: str, arguments: argparse.Namespace) -> dict[str, dict[str, Any]]:
    """Every contender in a fresh process, one of them at work at any time."""
    with ExitStack() as stack:
        contenders = [Contender(name, model, arguments, stack) for name in CONTENDERS]
        for contender in contenders:
            contender.listen()
        while waiting := [contender for contender in contenders if not contender.answer]:
            for contender in waiting:
                contender.turn()
    return {contender.name: contender.answer for contender in contenders}


class Contender:
    """A process that computes when it is told to, and says when it waits."""

    def __init__(self, name: str, model: str, arguments: argparse.Namespace, stack: ExitStack) -> None:
        command = [sys.executable, str(Path(__file__).resolve()), "--child", name, "--model", model]
        for option in ("steps", "threads", "precision"):
            command += [f"--{option}", str(getattr(arguments, option))]
        environment = os.environ | {"OMP_NUM_THREADS": str(arguments.threads), "HF_HUB_OFFLINE": "1"}
        self.name = name
        self.answer: dict[str, Any] = {}
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.STDOUT}
        self.process = stack.enter_context(subprocess.Popen(command, text=True, env=environment, **pipes))
        stack.callback(self.process.kill)

    def turn(self) -> None:
        self.process.stdin.write("\n")
        self.process.stdin.flush()
        self.listen()

    def listen(self) -> None:
        """Return when the process waits for its turn, or has ended with an answer."""
        said = []
        for line in self.process.stdout:
            if line == f"{WAITING}\n":
                return
            if line.startswith(ANSWER):
                self.answer = json.loads(line.removeprefix(ANSWER))
                return
            said.append(line)
        raise RuntimeError(f"{self.name} failed:\n{''.join(said)[-4000:]}")


def wait() -> None:
    print(f"\n{WAITING}", flush=True)
    if not sys.stdin.readline():
        raise SystemExit("the benchmark that started this process is gone")


def check(runs: list[dict[str, Any]], precision: str) -> None:
    """Whether all runs have the first one's losses, at the steps that both kept."""
    first = runs[0]["losses"]
    for run in runs[1:]:
        for step in sorted(first.keys() & run["losses"].keys(), key=int):
            mine, other = first[step], run["losses"][step]
            if not math.isclose(mine, other, rel_tol=0, abs_tol=TOLERANCE[precision]):
                raise RuntimeError(
                    f"the comparison is void: at step {step} {runs[0]['contender']} has a loss of {mine:.6f}, "
                    f"{run['contender']} of {other:.6f}"
                )


def row(name: str, model: str, rounds: list[dict[str, Any]], arguments: argparse.Namespace) -> dict[str, Any]:
    rates = [rate(found[name]) for found in rounds]
    ratios = [ratio(found[name], found["ours"]) for found in rounds]
    share = statistics.median(found[name]["hook_share"] for found in rounds)
    return {
        "model": model,
        "precision": arguments.precision,
        "threads": arguments.threads,
        "batch": f"{BATCH} x {LENGTH}",
        "contender": name,
        "tokens/s": round(statistics.median(rates)),
        "peak MB": round(max(found[name]["peak_bytes"] for found in rounds) / MB, 1),
        "ours / it": round(statistics.median(ratios), 4),
        "smallest": round(min(ratios), 4),
        "largest": round(max(ratios), 4),
        "of the step in the hook": f"{share:.2%}" if share else None,
    }


def rate(run: dict[str, Any]) -> float:
    """Tokens a second in the median turn."""
    return BATCH * LENGTH / statistics.median(run["seconds"])


def ratio(run: dict[str, Any], own: dict[str, Any]) -> float:
    """How many times as fast as a run our own was, in the median turn."""
    return statistics.median(a / b for a, b in zip(run["seconds"], own["seconds"], strict=True))


def measure(name: str, preset: str, arguments: argparse.Namespace, wait: Callable[[], object]) -> dict[str, Any]:
    """Run one contender here, waiting before each turn."""
    torch.set_num_threads(arguments.threads)
    here = runtime.start(arguments.precision)
    reset_peak_bytes()
    held = peak_bytes()
    model = presets.build(presets.configuration(preset, 257, LENGTH), seed=0).to(here.device)
    batches = TokenBatches(tokens(), BATCH, LENGTH, seed=0)
    work = Work(model, batches, WARMUP + arguments.steps, arguments.precision, here.device, wait)
    wait()
    CONTENDERS[name](work)
    mean = statistics.mean(work.seconds)
    return {
        "contender": name,
        "seconds": work.seconds,
        "peak_bytes": peak_bytes() - held,
        "hook_share": work.hook_seconds / arguments.steps / mean,
        "losses": {str(step): loss for step, loss in work.losses.items()},
    }


def tokens() -> Tokens:
    return packed("python", "train", byte_tokenizer())


def now() -> float:
    """The time when all that the accelerator was given is done."""
    if torch.accelerator.is_available():
        torch.accelerator.synchronize()
    return time.perf_counter()


def bare(work: Work) -> None:
    parameters = list(work.model.parameters())
    groups = [
        {"params": [p for p in parameters if p.ndim >= 2], "weight_decay": DECAY},
        {"params": [p for p in parameters if p.ndim < 2], "weight_decay": 0.0},
    ]
    optimizer = torch.optim.AdamW(groups, lr=RATE, betas=BETAS, fused=True)
    batches = iter(work.batches)
    for step in range(work.last):
        for group in optimizer.param_groups:
            group["lr"] = RATE * min(1.0, (step + 1) / WARMUP)
        inputs = next(batches)["input_ids"].to(work.device, non_blocking=True)
        with torch.autocast(work.device.type, torch.bfloat16, enabled=work.precision == "bf16"):
            loss = work.model(input_ids=inputs, labels=inputs, use_cache=False).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(parameters, CLIP)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        work.losses[step + 1] = loss.item()
        work.clock(step + 1)


def ours(work: Work, *hooks: Hook) -> None:
    def keep_loss(run: Run) -> None:
        work.losses[run.step] = run.loss
        work.clock(run.step)

    ledger = Ledger()
    with ledger.phase("train"):
        train(
            a_run(work),
            next_token,
            until=work.last,
            hooks=[*(timed(hook, work) for hook in hooks), keep_loss],
            ledger=ledger,
            clip=CLIP,
            schedule=constant(WARMUP),
        )


def plain(work: Work) -> None:
    run = a_run(work)
    for step in work.ends:
        train(run, next_token, until=step, clip=CLIP, schedule=constant(WARMUP))
        work.losses[step] = run.loss
        work.clock(step)


def a_run(work: Work) -> Run:
    return Run(work.model, adamw(work.model, RATE, DECAY, BETAS), work.batches)


def timed(hook: Hook, work: Work) -> Hook:
    """The hook, its seconds after the warm-up booked apart."""

    def call(run: Run) -> None:
        since = now()
        hook(run)
        if run.step > WARMUP:
            work.hook_seconds += now() - since

    return call


def logging(work: Work) -> None:
    with tempfile.TemporaryDirectory() as folder:
        log = Log(Path(folder), Ledger())
        ours(work, Every(10, log))
        log.close()


def hugging_face(work: Work) -> None:
    stream = iter(work.batches)
    rows = torch.cat([next(stream)["input_ids"] for _ in range(work.last)])
    kept = []

    class Windows(torch.utils.data.Dataset[dict[str, torch.Tensor]]):
        def __len__(self) -> int:
            return len(rows)

        def __getitem__(self, index: int) -> dict[str, torch.Tensor]:
            return {"input_ids": rows[index], "labels": rows[index]}

    class LossesKept(Trainer):
        def training_step(self, *arguments: Any, **named: Any) -> torch.Tensor:
            kept.append(super().training_step(*arguments, **named))
            return kept[-1]

    class Clock(TrainerCallback):
        def on_step_end(self, arguments: Any, state: Any, control: Any, **_: Any) -> None:
            work.clock(state.global_step)

    # the Trainer's own AdamW is this one, with these groups; its own warm-up starts from 0 and would not be ours
    optimizer = adamw(work.model, RATE, DECAY, BETAS)
    accelerated = torch.accelerator.is_available()
    with tempfile.TemporaryDirectory() as folder:
        settings = TrainingArguments(
            output_dir=folder,
            per_device_train_batch_size=BATCH,
            max_steps=work.last,
            max_grad_norm=CLIP,
            train_sampling_strategy="sequential",
            bf16=work.precision == "bf16",
            use_cpu=not accelerated,
            dataloader_pin_memory=accelerated,
            logging_strategy="no",
            save_strategy="no",
            report_to="none",
            disable_tqdm=True,
        )
        LossesKept(
            model=work.model,
            args=settings,
            train_dataset=Windows(),
            callbacks=[Clock()],
            optimizers=(optimizer, LambdaLR(optimizer, constant(WARMUP))),
        ).train()
    work.losses.update({step: loss.item() for step, loss in enumerate(kept, start=1)})


CONTENDERS: dict[str, Callable[[Work], None]] = {
    "bare loop": bare,
    "ours": ours,
    "Trainer": hugging_face,
    "ours, plain": plain,
    "ours + Every(10, Log)": logging,
    "ours + Latest(20, every=5)": lambda work: ours(work, Latest(20, every=5)),
    "ours + Ema(0.9, every=5)": lambda work: ours(work, Ema(0.9, every=5)),
}


def show(rows: list[dict[str, Any]]) -> None:
    first = rows[0]
    print(f"{first['precision']}, {first['threads']} threads, batches of {first['batch']} tokens")
    print(f"{'model':>12} {'contender':>27} {'tokens/s':>9} {'peak MB':>9} {'hook':>7}")
    for row in rows:
        hook = row["of the step in the hook"] or ""
        print(f"{row['model']:>12} {row['contender']:>27} {row['tokens/s']:>9,} {row['peak MB']:>9,} {hook:>7}")
    print("\nratios of tokens/s, median over the rounds (smallest to largest)")
    for row in rows:
        if row["contender"] != "ours":
            spread = f"{row['smallest']:.3f} to {row['largest']:.3f}"
            print(f"{row['model']}: ours / {row['contender']}: {row['ours / it']:.3f} ({spread})")


def keep(file: Path, rows: list[dict[str, Any]]) -> None:
    facts = gather(shlex.join(["python", "benchmarks/engine.py", *sys.argv[1:]]))
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps({"benchmark": "engine", **facts, "rows": rows}, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
