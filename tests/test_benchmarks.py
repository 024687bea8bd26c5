"""The benchmark scripts: each reads its arguments and runs, at toy size, and refuses a comparison that is none."""

import argparse
import importlib.util
import json
import sys
import time
from pathlib import Path
from types import ModuleType

import pytest
import torch
from safetensors.torch import load_file, save_file

ROOT = Path(__file__).resolve().parent.parent


def script(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(f"benchmark_{name}", ROOT / "benchmarks" / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look their module up
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(ROOT / "benchmarks"))  # as where it is run: one may read another
        spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def engine() -> ModuleType:
    return script("engine")


@pytest.fixture
def averaging(monkeypatch) -> ModuleType:
    """The script with checkpoints of a few numbers in place of gigabytes, and its jobs in this process."""
    module = script("averaging")

    def make(folder: str, size: str, dtype: str) -> float:
        for number in range(module.COUNT):
            torch.manual_seed(number)
            source = Path(folder) / f"step-{number:08d}"
            source.mkdir()
            shards = {f"model-0000{shard}-of-00002.safetensors": f"layer.{shard}.weight" for shard in (1, 2)}
            for file, name in shards.items():
                save_file(
                    {name: torch.randn(8, 16).to(getattr(torch, dtype))}, source / file, metadata={"format": "pt"}
                )
            index = {"metadata": {}, "weight_map": {name: file for file, name in shards.items()}}
            (source / "model.safetensors.index.json").write_text(json.dumps(index))
            (source / "config.json").write_text("{}")
        return 0.0

    jobs = {"idle": module.idle, "make": make, "merge": module.ours, "naive": module.naive, "check": module.check}

    def run_child(_: str, job: str, *words: str) -> dict[str, float]:
        return {"seconds": jobs[job](*words) + 1e-3, "peak": 1e6 if job == "idle" else 3e6}

    monkeypatch.setattr(module, "run_child", run_child)
    monkeypatch.setattr(module, "DROP", Path("/nonexistent"))
    module.jobs = jobs
    return module


@pytest.fixture
def toy() -> argparse.Namespace:
    return argparse.Namespace(steps=7, threads=1, precision="fp32")


def answer(contender: str, losses: dict[str, float]) -> dict[str, object]:
    return {"contender": contender, "losses": losses, "seconds": [0.5, 0.25, 0.125], "peak_bytes": 5e6, "hook_share": 0}


def test_losses_are_compared_at_the_steps_that_both_kept(engine):
    engine.check([answer("a", {"1": 2.0, "2": 1.0}), answer("b", {"2": 1.0005})], "fp32")
    with pytest.raises(RuntimeError, match=r"void: at step 2 a has a loss of 1\.000000, b of 1\.010000"):
        engine.check([answer("a", {"1": 2.0, "2": 1.0}), answer("b", {"2": 1.01})], "fp32")


def test_a_loss_that_is_not_a_number_voids_the_comparison(engine):
    with pytest.raises(RuntimeError, match="void"):
        engine.check([answer("a", {"1": 2.0}), answer("b", {"1": float("nan")})], "fp32")


def test_ratios_are_of_turns_of_the_same_number(engine):
    tokens = engine.BATCH * engine.LENGTH
    other = answer("b", {}) | {"seconds": [1.0, 1.0, 0.5]}
    assert engine.rate(answer("ours", {})) == tokens * 4
    assert engine.ratio(other, answer("ours", {})) == 4.0  # of 2, 4 and 4


def test_turns_end_after_the_warmup_then_every_few_steps_and_at_the_last(engine):
    work = engine.Work(None, None, engine.WARMUP + engine.TURN + 2, "fp32", None, lambda: None)
    assert work.ends == [engine.WARMUP, engine.WARMUP + engine.TURN, engine.WARMUP + engine.TURN + 2]


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_all_contenders_compute_the_same_losses(engine, toy, precision):
    toy.precision = precision
    waits = []
    found = {name: engine.measure(name, "neox-tiny", toy, lambda: waits.append(1)) for name in engine.CONTENDERS}
    engine.check(list(found.values()), precision)
    assert found["ours"]["losses"].keys() == found["Trainer"]["losses"].keys() == found["bare loop"]["losses"].keys()
    assert {len(run["seconds"]) for run in found.values()} == {2}
    assert len(waits) == 3 * len(found)
    assert {name for name, run in found.items() if run["hook_share"]} == {name for name in found if "+" in name}
    rows = [engine.row(name, "neox-tiny", [found, found], toy) for name in found]
    engine.show(rows)
    assert next(row for row in rows if row["contender"] == "ours")["ours / it"] == 1.0


def test_another_learning_rate_is_another_comparison(engine, toy, monkeypatch):
    first = engine.measure("bare loop", "neox-tiny", toy, lambda: None)
    monkeypatch.setattr(engine, "RATE", 1.2e-3)
    with pytest.raises(RuntimeError, match="void"):
        engine.check([first, engine.measure("ours", "neox-tiny", toy, lambda: None)], "fp32")


def test_engine_runs_in_its_own_processes(engine, monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(engine, "CONTENDERS", {name: engine.CONTENDERS[name] for name in ("bare loop", "ours")})
    kept = tmp_path / "new" / "engine.json"
    words = ["--model", "neox-tiny", "--steps", "6", "--rounds", "1", "--threads", "1", "--json", str(kept)]
    monkeypatch.setattr(sys, "argv", ["engine.py", *words])
    engine.main()
    record = json.loads(kept.read_text())
    assert record.keys() >= {"benchmark", "command", "date", "commit", "machine", "rows"}
    assert [row["contender"] for row in record["rows"]] == ["bare loop", "ours"]
    assert all(row["tokens/s"] > 0 and row["peak MB"] > 0 for row in record["rows"])
    assert "neox-tiny: ours / bare loop: " in capsys.readouterr().out.splitlines()[-1]


def test_a_contender_that_fails_ends_the_benchmark_with_its_words(engine, toy, monkeypatch):
    monkeypatch.setattr(engine, "CONTENDERS", {"ours": engine.ours})
    with pytest.raises(RuntimeError, match="no preset is called 'neox-2m'"):
        engine.one_round("neox-2m", toy)


def test_averaging_measures_merge_beside_the_naive_way_and_the_disk(averaging, monkeypatch, tmp_path, capsys):
    kept = tmp_path / "averaging.json"
    words = ["--sizes", "0.001", "--repeats", "1", "--folder", str(tmp_path), "--json", str(kept)]
    monkeypatch.setattr(sys, "argv", ["averaging.py", *words])
    averaging.main()
    record = json.loads(kept.read_text())
    assert record.keys() >= {"benchmark", "command", "date", "commit", "machine", "rows"}
    assert [row["contender"] for row in record["rows"]] == ["merge", "naive", "disk", "disk, synced"]
    assert record["rows"][0]["peak_mb_over_interpreter"] == 2.0
    assert "of the speed of the disk" in capsys.readouterr().out.splitlines()[-1]
    assert list(tmp_path.iterdir()) == [kept]


def test_averaging_refuses_a_merge_with_one_wrong_bit(averaging, tmp_path):
    averaging.jobs["make"](str(tmp_path), "0", "float32")
    averaging.ours(str(tmp_path), str(tmp_path / "out"))
    averaging.check(str(tmp_path), str(tmp_path / "out"))
    file = sorted((tmp_path / "out").glob("*.safetensors"))[0]
    tensors = load_file(file)
    tensors["layer.1.weight"].view(torch.int32)[0, 0] ^= 1
    save_file(tensors, file, metadata={"format": "pt"})
    with pytest.raises(RuntimeError, match=r"layer\.1\.weight is not the float32 mean"):
        averaging.check(str(tmp_path), str(tmp_path / "out"))


@pytest.mark.parametrize("name", [path.stem for path in (ROOT / "benchmarks").glob("*.py")])
def test_each_says_how_it_is_used_and_refuses_what_it_does_not_know(name, monkeypatch, capsys):
    module = script(name)
    for word, status in (("--help", 0), ("--jsn", 2)):
        monkeypatch.setattr(sys, "argv", [f"{name}.py", word])
        with pytest.raises(SystemExit) as ended:
            module.main()
        assert ended.value.code == status
    assert f"python benchmarks/{name}.py" in capsys.readouterr().out


@pytest.mark.parametrize("option", ["--steps", "--rounds", "--threads"])
def test_engine_refuses_counts_below_one(engine, monkeypatch, capsys, option):
    monkeypatch.setattr(sys, "argv", ["engine.py", option, "0"])
    with pytest.raises(SystemExit):
        engine.main()
    assert f"{option} is 0: expected one or more" in capsys.readouterr().err


@pytest.fixture
def search() -> ModuleType:
    return script("search")


def test_search_runs_at_toy_size(search, monkeypatch, tmp_path, capsys):
    threads, kept = torch.get_num_threads(), tmp_path / "new" / "search.json"
    monkeypatch.setattr(sys, "argv", ["search.py", "--quick", "--json", str(kept)])
    search.main()
    assert torch.get_num_threads() == threads
    record = json.loads(kept.read_text())
    assert record.keys() >= {"benchmark", "command", "date", "commit", "machine", "rows"}
    measured = {row["measured"]: row for row in record["rows"]}
    assert list(measured) == [
        "ours",
        "published",
        "published, channels last",
        "forward",
        "kernel in integers",
        "kernel in floats",
        "memory",
        "memory, 2 workers",
    ]
    assert measured["ours"]["ours / it"] == measured["kernel in integers"]["ours / it"] == 1.0
    assert all(row["networks/s"] > 0 for row in record["rows"][:3])
    assert measured["published"]["same kernel"] == "3 of 3"
    assert measured["memory"]["networks"] == 20
    assert "x as fast as the published procedure (" in capsys.readouterr().out.splitlines()[-1]


def test_search_tells_how_well_both_procedures_order_a_table(search, monkeypatch, tmp_path):
    made, kept = ROOT / "tests" / "methods" / "search" / "made", tmp_path / "order.json"
    words = ["--order", "8", "--table", str(made / "cells.csv"), "--images", str(made / "images.npz")]
    monkeypatch.setattr(sys, "argv", ["search.py", "--quick", *words, "--json", str(kept)])
    search.main()
    rows = json.loads(kept.read_text())["rows"]
    assert [row["cells"] for row in rows] == [8] * 5
    one, own = (
        next(row for row in rows if row["measured"] == f"ours, {of}") for of in ("one seed for all", "a seed a cell")
    )
    columns = [f"τ, {of}_test_200ep" for of in ("c10", "c100", "in16")]
    assert list(one)[2:] == columns
    assert all(-1 <= float(row[column].split()[0]) <= 1 for row in rows for column in columns)
    assert [one[column] for column in columns] != [own[column] for column in columns]


def test_search_orders_no_table_that_is_not_named(search, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["search.py", "--order", "8"])
    with pytest.raises(SystemExit):
        search.main()
    assert "--order needs --table and --images" in capsys.readouterr().err


def test_the_published_procedure_counts_what_each_two_images_agree_in(search):
    model = torch.nn.Sequential(torch.nn.Linear(2, 3), torch.nn.ReLU())
    model[0].load_state_dict({"weight": torch.tensor([[1.0, 0], [0, 1], [-1, 0]]), "bias": torch.zeros(3)})
    images = torch.tensor([[1.0, 1.0], [1.0, -1.0], [-1.0, -1.0]])  # codes 110, 100, 001
    assert search.published_kernel(model, images).tolist() == [[3, 2, 0], [2, 3, 1], [0, 1, 3]]
    assert model[0].weight.grad is not None


def test_the_published_procedure_leaves_out_what_no_gradient_reached(search):
    class Two(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.used, self.lost = torch.nn.Sequential(torch.nn.Linear(2, 3), torch.nn.ReLU()), torch.nn.ReLU()

        def forward(self, images: torch.Tensor) -> torch.Tensor:
            self.lost(images)
            return self.used(images)

    assert search.published_kernel(Two(), torch.randn(4, 2))[0, 0] == 3


def test_search_refuses_a_kernel_that_is_not_the_same(search, monkeypatch):
    space, images = search.Cells201(2, 1), torch.randn(4, 3, 8, 8)
    cell = ("nor_conv_3x3",) * 6
    assert search.check(space, cell, images)
    right = search.published_kernel

    def wrong(model: torch.nn.Module, given: torch.Tensor) -> object:
        found = right(model, given)
        found[0, 1] += 1
        return found

    monkeypatch.setattr(search, "published_kernel", wrong)
    with pytest.raises(RuntimeError, match=r"void: the kernels of \|nor_conv_3x3~0\|.* are 1 of [0-9]+ units apart"):
        search.check(space, cell, images)


def test_search_tells_how_far_memory_rose_after_the_first_tenth(search, monkeypatch):
    seen = [90, 50, *[52] * 10, 57, *[51] * 7]
    answer = argparse.Namespace(returncode=0, stdout=f"words\n{json.dumps([mb * search.MB for mb in seen])}\n")
    monkeypatch.setattr(search.subprocess, "run", lambda *_, **__: answer)
    row = search.memory(argparse.Namespace(memory=20), 1)
    assert (row["MB after a tenth"], row["MB more at most"]) == (50.0, 7.0)
    monkeypatch.setattr(search.subprocess, "run", lambda *_, **__: argparse.Namespace(returncode=1, stderr="no memory"))
    with pytest.raises(RuntimeError, match="failed:\nno memory"):
        search.memory(argparse.Namespace(memory=20), 2)


@pytest.mark.parametrize(("option", "least"), [("--cells", 1), ("--samples", 2), ("--memory", 10), ("--repeats", 1)])
def test_search_refuses_counts_that_measure_nothing(search, monkeypatch, capsys, option, least):
    monkeypatch.setattr(sys, "argv", ["search.py", option, "0"])
    with pytest.raises(SystemExit):
        search.main()
    assert f"{option} is 0: expected {least} or more" in capsys.readouterr().err


def test_mixing_measures_the_stream_beside_its_peer(monkeypatch, tmp_path, capsys):
    mixing, kept = script("mixing"), tmp_path / "mixing.json"
    words = ["--rounds", "1", "--rows", "8", "--batches", "2", "--draws", "10", "--json", str(kept)]
    monkeypatch.setattr(sys, "argv", ["mixing.py", *words])
    mixing.main()
    record = json.loads(kept.read_text())
    assert record.keys() >= {"benchmark", "command", "date", "commit", "machine", "rows"}
    rows = {row["measured"]: row for row in record["rows"]}
    assert rows["rows, ours"]["ours / it"] == rows["streams, ours"]["ours / it"] == 1.0
    for row in rows.values():
        assert all(value > 0 for key, value in list(row.items())[1:] if "more" not in key), row
    assert "us to re-weigh 1000 skills" in capsys.readouterr().out


def test_sorting_is_measured_against_what_is_known(monkeypatch, tmp_path, capsys):
    sorting, kept = script("mixing_sort"), tmp_path / "sort.json"
    monkeypatch.delenv("SHOESTRING_DATA", raising=False)
    words = ["--seeds", "1", "--samples", "30", "--runs", "1", "--steps", "4", "--json", str(kept)]
    monkeypatch.setattr(sys, "argv", ["mixing_sort.py", *words])
    sorting.main()
    rows = json.loads(kept.read_text())["rows"]
    assert {row["sorted"] for row in rows} == {"made"}
    assert {"losses", "embeddings"} <= {row["by"] for row in rows}
    assert all(0 < row["recovered %"] <= 100 for row in rows)
    assert "recovered %" in capsys.readouterr().out


def test_asking_is_measured_beside_the_bare_client(monkeypatch, tmp_path, capsys):
    pytest.importorskip("openai")
    asking, kept = script("asking"), tmp_path / "asking.json"
    words = ["--rounds", "1", "--requests", "20", "--concurrency", "5", "--delay", "0.01", "--json", str(kept)]
    monkeypatch.setattr(sys, "argv", ["asking.py", *words])
    asking.main()
    record = json.loads(kept.read_text())
    assert record.keys() >= {"benchmark", "command", "date", "commit", "machine", "rows"}
    rows = {row["measured"]: row for row in record["rows"]}
    assert list(rows) == ["ours", "openai", "ideal"]
    assert rows["ours"]["ours / it"] == rows["ideal"]["of the ideal"] == 1.0
    assert rows["ideal"]["seconds"] == 0.04
    assert all(row["seconds"] > 0 and row["requests/s"] > 0 for row in rows.values())
    assert "of the ideal" in capsys.readouterr().out.splitlines()[-1]


def test_asking_refuses_a_contender_without_all_its_answers(monkeypatch):
    asking = script("asking")
    monkeypatch.setattr(asking, "peer", lambda url, arguments: asking.Found(1, 0.1, 0.1))
    words = ["--rounds", "1", "--requests", "2", "--delay", "0.001"]
    monkeypatch.setattr(sys, "argv", ["asking.py", *words])
    with pytest.raises(RuntimeError, match=r"void: openai has 1 answers of 2"):
        asking.main()


@pytest.mark.parametrize(("option", "said"), [("--requests", "expected one or more"), ("--delay", "expected seconds")])
def test_asking_refuses_what_measures_nothing(monkeypatch, capsys, option, said):
    monkeypatch.setattr(sys, "argv", ["asking.py", option, "0"])
    asking = script("asking")
    with pytest.raises(SystemExit):
        asking.main()
    assert said in capsys.readouterr().err


def test_an_answer_is_measured_beside_that_of_a_plain_student(monkeypatch, tmp_path, capsys):
    answering, kept = script("rationale"), tmp_path / "rationale.json"
    words = ["--models", "t5-tiny", "neox-tiny", "--examples", "2", "--reason", "3", "--rounds", "1"]
    monkeypatch.setattr(sys, "argv", ["rationale.py", *words, "--json", str(kept)])
    answering.main()
    rows = json.loads(kept.read_text())["rows"]
    for student in ("t5-tiny", "neox-tiny"):
        found = {row["answer"]: row for row in rows if row["student"] == student}
        assert found["two-task: label"]["MFLOP"] == found["standard: label"]["MFLOP"] > 0
        assert found["two-task: label and reason"]["FLOPs / plain"] > 1
        assert all(row["ms"] > 0 for row in found.values())
        assert {"two-task: label, ONNX", "two-task: label, ONNX, int8"} <= set(found)
    assert "neox-tiny: a two-task label takes 1.0 x the FLOPs" in capsys.readouterr().out.splitlines()[-1]


def test_what_waits_takes_time_too_and_none_always_comes_after_the_same(monkeypatch):
    """By the clock: what a processor spends is not what somebody waits for."""
    answering, order = script("rationale"), []

    def call(name, seconds):
        order.append(name)
        time.sleep(seconds)
        return torch.ones(2, 2) @ torch.ones(2, 2)

    calls = {answering.PLAIN: lambda: call("plain", 0), "slow": lambda: call("slow", 0.02)}
    monkeypatch.setattr(answering, "answers", lambda *_: calls)
    _, slow = answering.measured("t5-tiny", argparse.Namespace(examples=1, reason=1, rounds=2))
    assert slow["ms"] >= 20
    assert order == ["plain", "slow"] * 3 + ["slow", "plain"]  # counted, made ready, and two rounds


@pytest.fixture
def two_streams(monkeypatch) -> ModuleType:
    words = ["--models", "xlnet-tiny", "--lengths", "16", "--tokens", "32", "--vocabulary", "50", "--rounds", "1"]
    monkeypatch.setattr(sys, "argv", ["permutation.py", *words, "--part", "4", "--threads", "1", "--dropouts", "0"])
    return script("permutation")


def test_a_step_of_two_streams_is_measured_beside_transformers(two_streams, monkeypatch, tmp_path, capsys):
    kept = tmp_path / "permutation.json"
    monkeypatch.setattr(sys, "argv", [*sys.argv, "--json", str(kept)])
    two_streams.main()
    rows = json.loads(kept.read_text())["rows"]
    assert {row["precision"] for row in rows} == {"fp32", "bf16"}
    for precision in ("fp32", "bf16"):
        found = {row["step"]: row for row in rows if row["precision"] == precision}
        assert set(found) == {"two streams", "content"}
        for row in found.values():
            assert row["activations"] == pytest.approx(
                row["ours, activation MB"] / row["transformers, activation MB"], rel=0.3
            )
            assert min(row["transformers, tokens/s"], row["ours, tokens/s"], row["speed"]) > 0
        assert 0 < found["two streams"]["activations"] < 1
        assert found["two streams"]["time / one stream"] > 0
        assert found["content"]["time / one stream"] is None
    assert "xlnet-tiny, 16 tokens, fp32, dropout 0.0:" in capsys.readouterr().out


@pytest.fixture
def attention(monkeypatch) -> ModuleType:
    words = ["--models", "xlnet-tiny", "--lengths", "16", "--tokens", "32", "--vocabulary", "50", "--rounds", "1"]
    monkeypatch.setattr(sys, "argv", ["permutation_attention.py", *words, "--part", "4", "--threads", "1"])
    return script("permutation_attention")


def test_our_attention_is_measured_beside_torchs(attention, monkeypatch, tmp_path):
    kept = tmp_path / "attention.json"
    monkeypatch.setattr(sys, "argv", [*sys.argv, "--json", str(kept)])
    attention.main()
    rows = json.loads(kept.read_text())["rows"]
    assert [(row["precision"], row["dropout"]) for row in rows] == [
        ("fp32", 0.0),
        ("fp32", 0.1),
        ("bf16", 0.0),
        ("bf16", 0.1),
    ]
    assert all(row["speed"] > 0 and 0 < row["activations"] < 1 for row in rows)


def test_an_attention_that_computes_something_else_voids_the_comparison(attention, monkeypatch):
    fused = attention.fused
    monkeypatch.setattr(attention, "fused", lambda *given: fused(*given) * 1.1)
    with pytest.raises(RuntimeError, match="void: losses"):
        attention.main()


def test_two_streams_that_compute_something_else_void_the_comparison(two_streams, monkeypatch):
    ways = two_streams.calls

    def wrong(theirs, ours, given):
        order = given | {"sees": given["sees"] + 1}  # each prediction is told its own token
        return ways(theirs, ours, given) | {two_streams.OURS: ways(theirs, ours, order)[two_streams.OURS]}

    monkeypatch.setattr(two_streams, "calls", wrong)
    with pytest.raises(RuntimeError, match="void: losses"):
        two_streams.main()
