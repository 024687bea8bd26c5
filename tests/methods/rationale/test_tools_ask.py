"""Asking from the command line: what is written, what is paid, and what is left behind where it goes wrong."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from collections.abc import Iterator
from functools import partial

import pytest

from shoestring.models.teacher.loopback import Exchange, Served, serving

OPTIONS = ("entailment", "neutral", "contradiction")
ROWS = [
    {
        "id": f"n{place}",
        "premise": f"A dog runs, {place}.",
        "hypothesis": "An animal moves.",
        "label": OPTIONS[place % 3],
    }
    for place in range(9)
]
ASKED = ("--form", "esnli")


def said(messages: list[dict[str, str]], _: dict) -> str:
    """By the row's number: all right, no marker, a label that is none, code, or markup and colours of a terminal."""
    question = messages[-1]["content"].rpartition("Premise:")[2]
    place = int(question.split(",")[1].split(".")[0])
    answers = {
        1: "I would rather not say.",
        2: "Dogs are animals.\nAnswer: purple",
        3: "__import__('os').system('touch owned')\nAnswer: neutral",
        4: "[/bold] \x1b[31mred\x1b[0m ünïcödé 犬\nAnswer: neutral",
    }
    return answers.get(place, "A dog is an animal.\nAnswer: entailment")


@pytest.fixture(scope="module")
def served() -> Iterator[Served]:
    with serving(said, model="dogs") as server:
        yield server


@pytest.fixture
def ask(call, served, rows_file, tmp_path):
    rows_file(ROWS)
    base = ("ask", tmp_path / "data.jsonl", "--teacher", served.url, "--model", "dogs", "--out", tmp_path / "r.jsonl")
    return lambda *words: call(*base, *(words or ASKED))


def there(folder) -> set[str]:
    return {path.name for path in folder.iterdir()} - {"data.jsonl"}


def test_rows_come_back_with_what_the_teacher_gave(ask, tmp_path, read_rows):
    found = ask(*ASKED, "--licence", "for tests")
    assert found.code == 0, found.err
    written = read_rows(tmp_path / "r.jsonl")
    assert [row["id"] for row in written] == [row["id"] for row in ROWS]
    first = {"rationale": "A dog is an animal.", "teacher_label": "entailment", "agreement": None, "told": False}
    assert written[0] == {**ROWS[0], "teacher": "dogs", "licence": "for tests", **first}
    assert written[1]["problem"] == "no marker"
    assert written[1]["completion"] == "I would rather not say."
    assert written[1]["rationale"] is None
    assert written[2]["problem"] == "label outside the options"
    assert written[3]["rationale"] == "__import__('os').system('touch owned')"
    assert not (tmp_path / "owned").exists()
    assert "ünïcödé 犬" in written[4]["rationale"]
    assert there(tmp_path) == {"r.jsonl", "r.sqlite", "r.sqlite.lock"}


def test_answers_of_which_none_can_be_read_are_a_warning(call, served, rows_file, tmp_path):
    rows_file(ROWS[1:2])
    base = ("ask", tmp_path / "data.jsonl", "--teacher", served.url, "--model", "dogs", "--out", tmp_path / "r.jsonl")
    found = call(*base, *ASKED)
    assert found.code == 0
    assert "warning: no answer could be read" in found.err
    assert "r.jsonl: 1 row, 0 with a reason and a label" in found.out


def test_what_went_wrong_is_counted_and_shown(ask):
    found = ask(*ASKED, "--price", "1,2")
    lines = {line.strip().rpartition("  ")[0].strip(): line.split("  ")[-1].strip() for line in found.out.splitlines()}
    assert lines["rows"] == lines["answered"] == "9"
    assert lines["no marker"] == lines["label outside the options"] == "1"
    assert lines["agree with the gold label"] == "3 of 7 (42.9%)"
    assert "• no marker, row 2: 'I would rather not say.'" in found.out
    assert "• label outside the options, row 3: 'Dogs are animals. Answer: purple'" in found.out
    assert "9 rows, 7 with a reason and a label" in found.out
    assert "asking: 9 of 9" in found.err


def test_the_same_command_pays_for_nothing_twice(ask, served, tmp_path, read_rows):
    ask()
    before, rows = served.requests, read_rows(tmp_path / "r.jsonl")
    again = ask()
    assert again.code == 0
    assert served.requests == before
    assert read_rows(tmp_path / "r.jsonl") == rows
    assert "tokens in this call" in again.out


def test_the_first_rows_alone_and_then_the_rest(ask, served, tmp_path, read_rows):
    before = served.requests
    assert ask(*ASKED, "--limit", "2", "--seed", "1").code == 0
    assert len(read_rows(tmp_path / "r.jsonl")) == 2
    assert served.requests - before == 2
    assert ask(*ASKED, "--seed", "1").code == 0
    assert served.requests - before == 9


@pytest.mark.parametrize("held", ["precious\n", '{"text": "a", "label": "b"}\n', '{"text": "a", "rationale": "b"}\n'])
def test_what_no_asking_wrote_is_not_written_over(ask, served, tmp_path, held):
    (tmp_path / "r.jsonl").write_text(held)
    done = ask()
    assert (done.code, done.err.count("\n")) == (2, 1)
    assert "it holds what no asking wrote: give another name, or delete it" in done.err
    assert (tmp_path / "r.jsonl").read_text() == held
    (tmp_path / "r.jsonl").write_text("")
    assert ask().code == 0


def test_a_vote(ask, tmp_path, read_rows):
    assert ask(*ASKED, "--samples", "3", "--temperature", "0.5", "--limit", "3").code == 0
    written = read_rows(tmp_path / "r.jsonl")
    assert written[0]["agreement"] == 1.0
    assert written[1]["problem"] == "no marker (3 of 3 samples)"
    assert written[1]["agreement"] is None


def test_the_gold_label_is_told(ask, tmp_path, read_rows):
    assert ask(*ASKED, "--told", "--limit", "1").code == 0
    assert read_rows(tmp_path / "r.jsonl")[0]["told"] is True


def test_a_budget_leaves_rows_without_an_answer(ask, served, tmp_path, read_rows):
    assert ask(*ASKED, "--limit", "1", "--seed", "2").code == 0  # a prompt's tokens are then known
    found = ask(*ASKED, "--seed", "2", "--budget-tokens", "1500", "--concurrency", "1")
    assert found.code == 3
    assert found.err.splitlines()[-1].startswith("shoestring: the budget is spent")
    assert found.err.splitlines()[-1].endswith("the same command goes on")
    written = read_rows(tmp_path / "r.jsonl")
    left = [row for row in written if row["teacher"] is None]
    assert len(written) == 9
    assert 0 < len(left) < 9
    assert all(row["problem"] == "no answer: stopped before it was answered" for row in left)
    assert ask(*ASKED, "--seed", "2").code == 0
    assert all(row["teacher"] == "dogs" for row in read_rows(tmp_path / "r.jsonl"))


def test_a_budget_for_no_answer_at_all_writes_nothing(ask, tmp_path):
    found = ask(*ASKED, "--budget-tokens", "5")
    said = "row 1 (n0) may take 2,202 tokens, more than the whole budget: give a larger one"
    assert (found.code, found.err.splitlines()[-1]) == (2, f"shoestring: nothing was answered: {said}")
    assert there(tmp_path) == set()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--form", "esnly"), "'esnly': expected one of cqa, svamp, esnli, anli; did you mean 'esnli'?"),
        (("--column", "premiss", "--prompt", "esnli"), "no column 'premiss'; it has 'id', 'premise'"),
        (("--form", "esnli", "--label", "lable"), "no column 'lable'"),
        (("--form", "esnli", "--prompt", "esnlii"), "'esnlii': no such prompt; did you mean 'esnli'?"),
        (("--column", "premise"), "--prompt: expected"),
        (("--column", "premise", "--prompt", "none.yaml"), "none.yaml: no such file"),
        (("--form", "esnli", "--option", "a", "--options", "b"), "give one or the other"),
        (("--form", "esnli", "--option", "a"), "holds 'entailment', expected one of ['a']"),
        (("--form", "esnli", "--price", "1"), "--price '1': expected two numbers"),
        (("--form", "esnli", "--budget-money", "1"), "give --price IN,OUT too"),
        (("--form", "esnli", "--samples", "2"), "2 samples at temperature 0"),
        (("--form", "esnli", "--answers", "{tmp}/data.jsonl"), "--answers"),
        (("--form", "esnli", "--out", "{tmp}/data.jsonl"), "it is what is read: write elsewhere"),
        (("--form", "esnli", "--out", "{tmp}/data.jsonl/r.jsonl"), "data.jsonl is a file"),
        (("--form", "esnli", "--out", "{tmp}/r.json"), "expected the name of a file ending in .jsonl"),
        (("--form", "esnli", "--teacher", "nowhere"), "'nowhere' is no server's URL"),
        (("--form", "esnli", "--teacher", "local:{tmp}/none", "--model", "x"), "names the model already"),
    ],
)
def test_what_is_wrong_is_one_line_and_leaves_nothing(ask, served, tmp_path, words, message):
    before = served.received
    found = ask(*(word.replace("{tmp}", str(tmp_path)) for word in words))
    assert found.code == 2
    assert found.err.startswith("shoestring: ")
    assert message in found.err
    assert found.err.count("\n") == 1
    assert found.out == ""
    assert there(tmp_path) == set()
    assert served.received == before


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([], "nothing in it"),
        ([{"premise": "a", "hypothesis": "b", "label": "maybe"}], "data.jsonl:1: column 'label' holds 'maybe'"),
        ([{**ROWS[0], "problem": "mine"}], "row 1: has a column 'problem', which ask writes"),
        ([{**ROWS[0], "premise": "  "}], "data.jsonl:1: column 'premise' is blank"),
    ],
)
def test_rows_that_cannot_be_asked_about(ask, rows_file, tmp_path, rows, message):
    rows_file(rows)
    found = ask()
    assert (found.code, found.err.count("\n")) == (2, 1)
    assert message in found.err
    assert there(tmp_path) == set()


def test_a_prompt_of_ones_own_with_braces_in_it_and_in_the_data(ask, rows_file, tmp_path, read_rows):
    rows_file([{"text": "{{rationale}} { %s } {0} , 7.", "label": "yes"}])
    prompt = tmp_path / "own.yaml"
    prompt.write_text('name: own\nquestion: "Premise: {{text"\nanswer: "{{rationale}} So: {{label}}"\n'
                      'parse: {split: ["So:"], label: text}\n')  # fmt: skip
    found = ask("--prompt", prompt)
    assert found.code == 2
    assert "own.yaml: question has braces that are no place" in found.err
    prompt.write_text(prompt.read_text().replace("{{text", "{{text}}").replace("So:", "Answer:"))
    assert ask("--prompt", prompt).code == 0
    assert read_rows(tmp_path / "r.jsonl")[0]["text"] == "{{rationale}} { %s } {0} , 7."


def test_a_wrong_key_leaves_nothing(call, rows_file, tmp_path, monkeypatch):
    class Refusing(Exchange):
        def complete(self, body):
            self.refuse(401, f"no such key: {self.headers.get('Authorization')}")

    monkeypatch.setenv("OPENAI_API_KEY", "sk-secret")
    rows_file(ROWS)
    with serving(said, exchange=Refusing) as server:
        words = ("--teacher", server.url, "--model", "m", "--out", tmp_path / "new" / "r.jsonl", *ASKED)
        found = call("ask", tmp_path / "data.jsonl", *words)
    assert found.code == 2
    assert "refuses the API key" in found.err.splitlines()[-1]
    assert "sk-secret" not in found.err
    assert there(tmp_path) == set()


def test_answers_in_use_by_another_are_left_to_it(ask, tmp_path):
    from shoestring.models.teacher.answers import Answers

    with Answers(tmp_path / "r.sqlite"):
        found = ask()
        assert found.code == 2
        assert "already open" in found.err
        assert (tmp_path / "r.sqlite").exists()


def test_a_server_that_is_not_there(ask, tmp_path, monkeypatch):
    from shoestring.models.teacher import limits

    monkeypatch.setattr(limits.Limits, "wait", lambda self, attempt: 0.0)
    found = ask(*ASKED, "--teacher", "http://127.0.0.1:9/v1")
    assert found.code == 2
    assert "cannot be reached" in found.err.splitlines()[-1]
    assert there(tmp_path) == set()


SLOW = """
import sys, time
from shoestring.models.teacher.loopback import Exchange, serving
class Refusing(Exchange):
    def complete(self, body):
        refused = "A dog runs, 0." in body["messages"][-1]["content"]
        self.refuse(422, "not that one") if refused else super().complete(body)
asked = []
def answer(messages, body):
    asked.append(body)
    if len(asked) == 3:
        print("the third", flush=True)
    time.sleep(0.6)
    return "Because.\\nAnswer: neutral"
with serving(answer, exchange=Refusing) as server:
    print(server.url, flush=True)
    sys.stdin.read()
"""


def test_ctrl_c_keeps_and_writes_what_is_there(rows_file, tmp_path, read_rows):
    data, out = rows_file(ROWS), tmp_path / "r.jsonl"
    server = subprocess.Popen([sys.executable, "-c", SLOW], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    try:
        url = server.stdout.readline().strip()
        words = ["ask", data, "--form", "esnli", "--teacher", url, "--model", "m", "--out", out, "--concurrency", "1"]
        command = [sys.executable, "-m", "shoestring", "rationale", *map(str, words)]
        heard = partial(signal.signal, signal.SIGINT, signal.SIG_DFL)  # where these tests go on in the background too
        pipe = subprocess.PIPE
        asking = subprocess.Popen(command, stdout=pipe, stderr=pipe, text=True, preexec_fn=heard)
        assert server.stdout.readline().strip() == "the third"
        asking.send_signal(signal.SIGINT)
        told, error = asking.communicate(timeout=60)
    finally:
        server.communicate("")
    assert asking.returncode == 130, (told, error)
    assert error.splitlines()[-1].startswith("shoestring: stopped: ")
    written = read_rows(out)
    assert len(written) == 9
    assert 0 < sum(row["teacher"] is not None for row in written) < 9
    assert written[-1]["problem"] == "no answer: stopped before it was answered"
    assert written[0]["problem"].startswith("no answer: HTTP 422: not that one")
    assert json.loads(data.read_text().splitlines()[0]) == ROWS[0]
    assert out.with_suffix(".sqlite").exists()
