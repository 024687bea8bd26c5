import json
import sys

import pytest
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from shoestring.evaluate.choices import Choice, choose
from shoestring.evaluate.harness import harness
from shoestring.models import presets
from shoestring.models.pretrained import load, save

pytest.importorskip("lm_eval", reason="the extra 'harness' is not installed: pip install 'shoestring[harness]'")

QUESTIONS = [
    {"question": f"What follows {word}?", "choices": [word[::-1], word * 2, "a 💡"], "answer": index % 3}
    for index, word in enumerate(["one", "two", "three", "four", "five", "six", "seven", "eight", "nine"])
]
TASK = """
task: follows
dataset_path: json
dataset_kwargs: {{data_files: {{test: {data}}}}}
test_split: test
output_type: multiple_choice
doc_to_text: "{{{{question}}}}"
doc_to_choice: "{{{{choices}}}}"
doc_to_target: answer
metric_list:
  - {{metric: acc, aggregation: mean, higher_is_better: true}}
  - {{metric: acc_bytes, aggregation: mean, higher_is_better: true}}
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    vocabulary = {token: index for index, token in enumerate(sorted(pre_tokenizers.ByteLevel.alphabet()))}
    inner = Tokenizer(models.BPE(vocab=vocabulary, merges=[]))
    inner.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    inner.decoder = decoders.ByteLevel()
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=inner, eos_token="<|endoftext|>")
    model = presets.build(presets.configuration("neox-tiny", 257, 48, initializer_range=0.3), seed=0)
    return save(model, tokenizer, tmp_path_factory.mktemp("models") / "tiny")


@pytest.fixture
def tasks(tmp_path, monkeypatch):
    import datasets

    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    folder = tmp_path / "tasks"
    folder.mkdir()
    data = folder / "questions.jsonl"
    data.write_text("\n".join(json.dumps(line) for line in QUESTIONS))
    (folder / "follows.yaml").write_text(TASK.format(data=data))
    return folder


def refusal(*arguments, **options) -> str:
    with pytest.raises(ValueError) as refused:
        harness(*arguments, **options)
    assert "\n" not in str(refused.value)
    return str(refused.value)


# against a reference: our own multiple choice


def test_a_local_task_agrees_with_choose(folder, tasks):
    found = harness(folder, ["follows"], include=tasks)
    model, tokenizer = load(folder)
    ours = choose(
        model,
        tokenizer,
        [
            Choice(line["question"], tuple(" " + choice for choice in line["choices"]), line["answer"])
            for line in QUESTIONS
        ],
    )
    assert found.keys() == {"follows"}
    assert found["follows"].keys() == {"acc", "acc_bytes"}
    assert found["follows"]["acc"] == pytest.approx(ours.accuracy)
    assert 0 < ours.accuracy < 1


def test_a_task_file_by_its_path_and_a_limit(folder, tasks):
    whole = harness(folder, ["follows"], include=tasks)
    path = str(tasks / "follows.yaml")
    assert harness(folder, [path], batch_size=2) == whole
    few = harness(folder, [path], limit=3)["follows"]["acc"]
    assert few * 3 == pytest.approx(round(few * 3))


def test_nothing_is_asked_of_the_network(folder, tasks, monkeypatch):
    import socket

    def refuse(*_arguments, **_options):
        raise AssertionError("the network was asked")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    assert harness(folder, ["follows"], include=tasks, limit=2)


def test_a_group_of_own_tasks(folder, tasks):
    (tasks / "group.yaml").write_text("group: both\ntask: [follows]\naggregate_metric_list: [{metric: acc}]\n")
    found = harness(folder, ["both"], include=tasks, limit=4)
    assert found["both"]["acc"] == found["follows"]["acc"]


# what a task file may not do


def test_a_task_file_that_would_run_python_is_refused(folder, tasks, tmp_path):
    (tasks / "mine.py").write_text(
        f"open({str(tmp_path / 'ran')!r}, 'w').close()\ndef text(doc): return doc['question']"
    )
    (tasks / "base.yml").write_text("doc_to_text: !function mine.text\n")
    (tasks / "code.yaml").write_text("include: base.yml\ntask: code\n")
    said = refusal(folder, [str(tasks / "code.yaml")])
    assert "base.yml would run mine.text: if you trust it, pass run_code=True" in said
    assert "would run mine.text" in refusal(folder, ["follows"], include=tasks)
    assert not (tmp_path / "ran").exists()


def test_code_runs_where_it_is_trusted(folder, tasks):
    expected = harness(folder, ["follows"], include=tasks)
    path = tasks / "follows.yaml"
    path.write_text(path.read_text().replace('"{{question}}"', "!function mine.text"))
    (tasks / "mine.py").write_text("def text(doc): return doc['question']\n")
    assert harness(folder, ["follows"], include=tasks, run_code=True) == expected


def test_a_template_that_reaches_for_python_is_stopped(folder, tasks):
    path = tasks / "follows.yaml"
    path.write_text(path.read_text().replace("{{question}}", "{{ question.__class__.__mro__ }}"))
    assert "cannot be run: SecurityError" in refusal(folder, ["follows"], include=tasks)


def test_data_that_are_not_there_are_named(folder, tasks):
    (tasks / "questions.jsonl").unlink()
    assert "questions.jsonl" in refusal(folder, ["follows"], include=tasks)


def test_a_metric_that_is_code_is_refused(folder, tasks):
    path = tasks / "follows.yaml"
    path.write_text(path.read_text().replace("metric: acc_bytes", "metric: ./mine.py"))
    assert "wants the metric './mine.py', which is code" in refusal(folder, ["follows"], include=tasks)


# misuse


def test_an_unknown_task_is_named(folder, tasks, monkeypatch):
    """Without the harness's own tasks, which take seconds to index."""
    import lm_eval.tasks

    def own_alone(include_path, include_defaults, real=lm_eval.tasks.TaskManager):
        assert include_defaults
        return real(include_path=include_path, include_defaults=False)

    monkeypatch.setattr(lm_eval.tasks, "TaskManager", own_alone)
    assert "the harness knows no task 'nothing'" in refusal(folder, ["nothing"], include=tasks)


def test_an_absent_or_broken_task_file_is_named(folder, tasks):
    assert "absent.yaml cannot be read" in refusal(folder, [str(tasks / "absent.yaml")])
    (tasks / "broken.yaml").write_text("task: [")
    assert "broken.yaml cannot be read" in refusal(folder, ["follows"], include=tasks)
    assert "no such folder of task files" in refusal(folder, ["follows"], include=tasks / "absent")


def test_an_absent_extra_says_how_to_install_it(folder, monkeypatch):
    monkeypatch.setitem(sys.modules, "lm_eval", None)
    assert refusal(folder, ["follows"]).endswith("pip install 'shoestring[harness]'")
