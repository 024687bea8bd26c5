"""Merging five checkpoints on disk: ours, load-all-and-add, mergekit, and the disk itself. Ratios come last.

    python benchmarks/averaging.py --sizes 0.25 1 3 --mergekit /path/to/python --json results/averaging/benchmark.json

Each contender runs in a fresh process; its seconds are those of the work, without the interpreter's start and imports;
its peak is the process's resident set (VmHWM) less that of an interpreter that has only imported torch.
The disk's own speed is the time in which `cat` reads the inputs and `cp` writes the output; and, since merge ends only
when its output is safe on the disk, which cp does not wait for, the same with `sync` of the copy.
Warm: all inputs were read once before. Cold: the system's cache was dropped (where this may be done).
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

COUNT = 5
DROP = Path("/proc/sys/vm/drop_caches")
SHARD = 1_000_000_000
GB = 1_000_000_000


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", type=float, nargs="+", default=[0.25, 1, 3], help="of one checkpoint, in GB")
    parser.add_argument("--dtype", choices=("bfloat16", "float32"), default="bfloat16")
    parser.add_argument("--repeats", type=int, default=3, help="the median counts")
    parser.add_argument("--mergekit", help="a python that has mergekit; left out where not given")
    parser.add_argument("--folder", type=Path, help="on the disk to be measured; a temporary one where not given")
    parser.add_argument("--json", type=Path, help="keep the rows here")
    parser.add_argument("--child", nargs="+", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.child:
        child(*arguments.child)
        return
    rows = []
    with tempfile.TemporaryDirectory(dir=arguments.folder) as temporary:
        for size in arguments.sizes:
            rows += measure(Path(temporary), size, arguments)
    show(rows)
    if arguments.json:
        keep(arguments.json, rows)


def measure(folder: Path, size: float, arguments: argparse.Namespace) -> list[dict[str, Any]]:
    """All contenders at one size, in turn, under each state of the cache."""
    python = sys.executable
    run_child(python, "make", str(folder), str(size), arguments.dtype)
    sources = sorted(folder.glob("step-*"))
    inputs = [file for source in sources for file in sorted(source.glob("*.safetensors"))]
    base = {one: run_child(one, "idle")["peak"] for one in {python, arguments.mergekit or python}}
    contenders = {"merge": python, "naive": python} | ({"mergekit": arguments.mergekit} if arguments.mergekit else {})
    rows = []
    for cache in ("warm", "cold") if os.access(DROP, os.W_OK) else ("warm",):
        seen: dict[str, list[dict[str, float]]] = {}
        for _ in range(arguments.repeats):
            for name, interpreter in contenders.items():
                out = folder / f"out-{name}"
                shutil.rmtree(out, ignore_errors=True)
                prepare(cache, inputs)
                seen.setdefault(name, []).append(run_child(interpreter, name, str(folder), str(out)))
                if name != "merge":
                    shutil.rmtree(out)
            written = sorted((folder / "out-merge").glob("*.safetensors"))
            for name in ("disk", "disk, synced"):
                prepare(cache, inputs, written)
                seen.setdefault(name, []).append({"seconds": disk(inputs, written, folder / "copy", name != "disk")})
        run_child(python, "check", str(folder), str(folder / "out-merge"))
        for name, runs in seen.items():
            row = {"gb": size, "dtype": arguments.dtype, "checkpoints": COUNT, "cache": cache, "contender": name}
            row["seconds"] = round(statistics.median(run["seconds"] for run in runs), 3)
            if name in contenders:
                peak = max(run["peak"] for run in runs) - base[contenders[name]]
                row["peak_mb_over_interpreter"] = round(peak / 1e6, 1)
            rows.append(row)
            print(f"{size:g} GB {cache} {name}: {row}", file=sys.stderr, flush=True)
    for path in [*sources, folder / "out-merge"]:
        shutil.rmtree(path)
    return rows


def prepare(cache: str, inputs: list[Path], written: Iterable[Path] = ()) -> None:
    """Nothing left to write back, and the cache as it should be: of the file that cp copies, always warm."""
    os.sync()
    if cache == "cold":
        DROP.write_text("3")
    read([*inputs, *written] if cache == "warm" else list(written))


def read(files: list[Path]) -> None:
    if files:
        subprocess.run(["cat", *map(str, files)], stdout=subprocess.DEVNULL, check=True)


def disk(inputs: list[Path], written: list[Path], copy: Path, synced: bool) -> float:
    """Seconds in which cat reads the inputs and cp writes the output."""
    copy.mkdir()
    started = time.perf_counter()
    read(inputs)
    subprocess.run(["cp", *map(str, written), str(copy)], check=True)
    if synced:
        subprocess.run(["sync", *map(str, copy.iterdir())], check=True)
    seconds = time.perf_counter() - started
    shutil.rmtree(copy)
    return seconds


def run_child(interpreter: str, *words: str) -> dict[str, float]:
    """One job in a fresh process: its seconds and the peak of its resident set, in bytes."""
    command = [interpreter, str(Path(__file__).resolve()), "--child", *words]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"{' '.join(command)} failed:\n{done.stderr[-4000:]}")
    answer: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return answer


def child(job: str, *words: str) -> None:
    import torch  # so that all start from the same interpreter

    work = {"idle": idle, "make": make, "merge": ours, "naive": naive, "mergekit": mergekit, "check": check}[job]
    seconds = work(*words)
    peak = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM"))
    print(json.dumps({"seconds": seconds, "peak": int(peak.split()[1]) * 1024, "threads": torch.get_num_threads()}))


def idle() -> float:
    return 0.0


def ours(folder: str, out: str) -> float:
    from shoestring.methods.averaging.merge import merge

    sources = sorted(Path(folder).glob("step-*"))
    started = time.perf_counter()
    merge(sources, out)
    return time.perf_counter() - started


def naive(folder: str, out: str) -> float:
    import torch
    from safetensors.torch import load_file, save_file

    started = time.perf_counter()
    states = []
    for source in sorted(Path(folder).glob("step-*")):
        states.append({})
        for file in sorted(source.glob("*.safetensors")):
            states[-1].update(load_file(file))
    mean = {}
    for name, newest in states[-1].items():
        total = torch.zeros(newest.shape)
        for state in states:
            total += state[name]
        mean[name] = (total / len(states)).to(newest.dtype)
    Path(out).mkdir()
    save_file(mean, Path(out) / "model.safetensors", metadata={"format": "pt"})
    return time.perf_counter() - started


def mergekit(folder: str, out: str) -> float:
    """Its command `mergekit-yaml`, called in this process, with the lazy loading it recommends."""
    os.environ["HF_HUB_OFFLINE"] = "1"
    from mergekit.scripts.run_yaml import main as command

    sources = sorted(Path(folder).glob("step-*"))
    models = "".join(f"  - model: {source}\n    parameters: {{weight: 1.0}}\n" for source in sources)
    recipe = Path(folder) / "linear.yaml"
    recipe.write_text(f"models:\n{models}merge_method: linear\ndtype: bfloat16\nparameters: {{normalize: true}}\n")
    words = [str(recipe), out, "--lazy-unpickle", "--no-copy-tokenizer", "--out-shard-size", "1B"]
    started = time.perf_counter()
    command(words, standalone_mode=False)
    return time.perf_counter() - started


def check(folder: str, out: str) -> float:
    """The merge's every bit against the mean in float32, tensor by tensor."""
    import torch
    from safetensors import safe_open

    index = json.loads((Path(out) / "model.safetensors.index.json").read_text())["weight_map"]
    for name, file in index.items():
        total = None
        for source in sorted(Path(folder).glob("step-*")):
            with safe_open(source / file, "pt") as stream:
                tensor = stream.get_tensor(name)
            total = torch.zeros(tensor.shape) if total is None else total
            total.add_(tensor.to(torch.float32), alpha=1 / COUNT)
        with safe_open(Path(out) / file, "pt") as stream:
            if total is None or not torch.equal(stream.get_tensor(name), total.to(tensor.dtype)):
                raise RuntimeError(f"{name} is not the float32 mean")
    return 0.0


def make(folder: str, size: str, kind: str) -> float:
    """Five checkpoints in the layout and under the names of a Llama, of about `size` GB each.

    A Llama, as mergekit asks of a GPT-NeoX for buffers that transformers no longer writes.
    """
    import torch
    from safetensors.torch import save_file

    dtype, gigabytes, words = getattr(torch, kind), float(size), 32000
    width, inner = (1024, 2816) if gigabytes < 1 else (2048, 5632)
    shapes = dict.fromkeys(("model.embed_tokens.weight", "lm_head.weight"), (words, width))
    left = gigabytes * GB / dtype.itemsize - 2 * words * width
    layers = max(1, round(left / (4 * width * width + 3 * width * inner)))
    for layer in range(layers):
        here = f"model.layers.{layer}"
        shapes |= {f"{here}.self_attn.{part}_proj.weight": (width, width) for part in "qkvo"}
        shapes |= {f"{here}.mlp.{part}_proj.weight": (inner, width) for part in ("gate", "up")}
        shapes[f"{here}.mlp.down_proj.weight"] = (width, inner)
        shapes |= {f"{here}.{part}_layernorm.weight": (width,) for part in ("input", "post_attention")}
    shapes["model.norm.weight"] = (width,)
    shards: list[list[str]] = [[]]
    held = 0
    for name, shape in shapes.items():
        length = torch.Size(shape).numel() * dtype.itemsize
        if held + length > SHARD and shards[-1]:
            shards.append([])
            held = 0
        shards[-1].append(name)
        held += length
    config = {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "hidden_size": width,
        "intermediate_size": inner,
        "num_attention_heads": 16,
        "num_hidden_layers": layers,
        "vocab_size": words,
        "tie_word_embeddings": False,
        "torch_dtype": kind,
    }
    for number in range(COUNT):
        torch.manual_seed(number)
        noise = torch.randn(words * width)
        source = Path(folder) / f"step-{number:08d}"
        source.mkdir()
        (source / "config.json").write_text(json.dumps(config))
        weight_map = {}
        for place, names in enumerate(shards):
            file = f"model-{place + 1:05d}-of-{len(shards):05d}.safetensors"
            tensors = {
                name: noise[: torch.Size(shapes[name]).numel()].reshape(shapes[name]).to(dtype) for name in names
            }
            save_file(tensors, source / file, metadata={"format": "pt"})
            weight_map |= dict.fromkeys(names, file)
        (source / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": weight_map}))
    return 0.0


def show(rows: list[dict[str, Any]]) -> None:
    print(f"{'size':>8} {'cache':>6} {'contender':>14} {'seconds':>9} {'peak MB':>9}")
    for row in rows:
        peak = row.get("peak_mb_over_interpreter", "")
        print(f"{row['gb']:>5g} GB {row['cache']:>6} {row['contender']:>14} {row['seconds']:>9.2f} {peak:>9}")
    print("\nratios")
    for gb, cache in dict.fromkeys((row["gb"], row["cache"]) for row in rows):
        of = {row["contender"]: row for row in rows if (row["gb"], row["cache"]) == (gb, cache)}
        own = of["merge"]
        words = [
            f"{of[name]['seconds'] / own['seconds']:.2f} of the speed of the {name}" for name in of if "disk" in name
        ]
        for name in ("naive", "mergekit"):
            if name in of:
                leaner = of[name]["peak_mb_over_interpreter"] / own["peak_mb_over_interpreter"]
                words.append(f"{of[name]['seconds'] / own['seconds']:.1f}x as fast and {leaner:.0f}x as lean as {name}")
        print(f"{gb:g} GB {cache}: {own['peak_mb_over_interpreter']} MB; " + "; ".join(words))


def keep(file: Path, rows: list[dict[str, Any]]) -> None:
    from shoestring.evaluate import facts

    told = facts.gather(" ".join(["python", "benchmarks/averaging.py", *sys.argv[1:]]))
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps({"benchmark": "averaging", **told, "rows": rows}, indent=1) + "\n")


if __name__ == "__main__":
    main()
