import json
import math
from types import SimpleNamespace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from torch import nn
from transformers import PreTrainedTokenizerFast

from shoestring.evaluate.choices import Choice, choose, read_questions
from shoestring.models import presets

TEXT = ["the cat sat on the mat", "a dog ate the cat food", "where is the dog now", "the mat is on the food"]


def trained_tokenizer() -> PreTrainedTokenizerFast:
    """With merges over the words of TEXT, so that where a text is cut matters."""
    inner = Tokenizer(models.BPE())
    inner.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    inner.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    inner.train_from_iterator(TEXT, trainers.BpeTrainer(vocab_size=300, initial_alphabet=alphabet, show_progress=False))
    return PreTrainedTokenizerFast(tokenizer_object=inner, eos_token="<|endoftext|>")


@pytest.fixture(scope="module")
def tokenizer():
    return trained_tokenizer()


@pytest.fixture(scope="module")
def model(tokenizer):
    return presets.build(presets.configuration("neox-tiny", len(tokenizer), 24, initializer_range=0.3), seed=0)


QUESTIONS = [
    Choice("the cat sat on", (" the mat", " a dog", " 💡"), 0),
    Choice("where is ", ("the dog", "the cat food now"), 1),
    Choice("", ("the food", " is on the mat"), 0),
    Choice("the cat sat on the mat a dog ate the cat food where is the dog", (" now", " the dog ate the cat food"), 1),
    Choice("  ", ("dog", "cat"), 0),
]


def slowly(model, tokenizer, context: str, option: str) -> float:
    """One option at a time, one token at a time, in float64."""
    kept = context.rstrip()
    start = tokenizer.encode(kept) if kept else [tokenizer.eos_token_id]
    whole = tokenizer.encode(context + option)
    tokens = whole if kept else start + whole
    total = 0.0
    for place in range(len(start), len(tokens)):
        read = tokens[: len(tokens) - 1][-24:]
        lost = len(tokens) - 1 - len(read)
        with torch.no_grad():
            logits = model(input_ids=torch.tensor([read])).logits[0, place - 1 - lost]
        total += logits.double().log_softmax(-1)[tokens[place]].item()
    return total


# by hand


class Fixed(nn.Module):
    """Token 3 is always as likely as `odds` says, the others share the rest."""

    def __init__(self, probability: float, vocabulary: int) -> None:
        super().__init__()
        rest = (1 - probability) / (vocabulary - 1)
        logits = torch.full((vocabulary,), math.log(rest))
        logits[3] = math.log(probability)
        self.logits = nn.Parameter(logits)
        self.config = SimpleNamespace(max_position_embeddings=100)

    def forward(self, input_ids, attention_mask, use_cache):
        return SimpleNamespace(logits=self.logits.expand(*input_ids.shape, -1))


def test_likelihoods_are_those_of_the_tokens(tokenizer):
    fixed, likely = Fixed(0.5, len(tokenizer)), tokenizer.convert_ids_to_tokens(3)
    other = tokenizer.convert_ids_to_tokens(4)
    rest = 0.5 / (len(tokenizer) - 1)
    score = choose(fixed, tokenizer, [Choice("a", (likely, other, likely + other), 0)])
    expected = [math.log(0.5), math.log(rest), math.log(0.5 * rest)]
    assert score.log_likelihoods[0] == pytest.approx(expected, abs=1e-5)
    assert score.accuracy == 1


def test_normalising_divides_by_the_bytes_of_the_option(tokenizer):
    fixed, token = Fixed(0.2, len(tokenizer)), tokenizer.convert_ids_to_tokens(3)
    question = Choice("a", (token, token * 2), 1)
    score = choose(fixed, tokenizer, [question, Choice("a", (token * 2, "💡" * 9), 0)])
    assert score.accuracy == 0.5  # the shorter option wins where each token costs
    assert score.accuracy_normalised == 0.5  # a tie by the byte goes to the first
    likelihoods = score.log_likelihoods[0]
    assert likelihoods[1] / 2 == pytest.approx(likelihoods[0], abs=1e-6)


# against a reference


@pytest.mark.parametrize("batch_size", [1, 3, 64])
def test_batches_equal_the_slow_way(model, tokenizer, batch_size):
    model.train()
    score = choose(model, tokenizer, QUESTIONS, batch_size)
    assert model.training
    for question, found in zip(QUESTIONS, score.log_likelihoods, strict=True):
        expected = [slowly(model, tokenizer, question.context, option) for option in question.options]
        assert found == pytest.approx(expected, abs=1e-4)


def test_accuracy_is_the_share_of_best_options(model, tokenizer):
    score = choose(model, tokenizer, QUESTIONS)
    best = [line.index(max(line)) for line in score.log_likelihoods]
    right = [Choice(question.context, question.options, index) for question, index in zip(QUESTIONS, best, strict=True)]
    assert choose(model, tokenizer, right).accuracy == 1
    wrong = Choice(QUESTIONS[0].context, QUESTIONS[0].options, (best[0] + 1) % 3)
    assert choose(model, tokenizer, [wrong, *right[1:]]).accuracy == pytest.approx(4 / 5)


def test_it_tokenises_as_the_harness_does(tokenizer):
    pytest.importorskip("lm_eval", reason="the extra 'harness' is not installed")
    from lm_eval.api.model import TemplateLM

    from shoestring.evaluate.choices import _continuation

    harness = SimpleNamespace(backend="causal", tok_encode=tokenizer.encode)
    for question in QUESTIONS:
        if question.context.strip():
            for option in question.options:
                context, continuation = TemplateLM._encode_pair(harness, question.context, option)
                ours = _continuation(tokenizer, question.context, option, None, "here")
                assert (ours.tokens, ours.scored) == (context + continuation, len(continuation))


# property


@settings(max_examples=25, deadline=None)
@given(
    st.lists(
        st.builds(
            Choice,
            st.text("ab 💡", max_size=12),
            st.lists(st.text("ab💡", min_size=1, max_size=5), min_size=2, max_size=3).map(tuple),
            st.just(0),
        ),
        min_size=1,
        max_size=4,
    ),
    st.integers(1, 5),
)
def test_batching_changes_nothing(model, tokenizer, questions, batch_size):
    one, many = choose(model, tokenizer, questions, 1), choose(model, tokenizer, questions, batch_size)
    for left, right in zip(one.log_likelihoods, many.log_likelihoods, strict=True):
        assert left == pytest.approx(right, abs=1e-4)
    assert one.truncated == many.truncated


def test_a_long_context_is_cut_on_its_left_and_counted(model, tokenizer):
    long, short = "x" * 40 + "where is", "where is"
    score = choose(model, tokenizer, [Choice(long, (" the", " a"), 0), Choice(short, (" the", " a"), 0)])
    assert score.truncated == 2
    assert score.log_likelihoods[0] == pytest.approx(
        [slowly(model, tokenizer, long, o) for o in (" the", " a")], abs=1e-4
    )


def test_a_wrapped_model_answers_too(model, tokenizer):
    wrapped = torch.compile(model, backend="eager")
    assert choose(wrapped, tokenizer, QUESTIONS[:1]).accuracy == choose(model, tokenizer, QUESTIONS[:1]).accuracy


# files


def test_questions_are_read_from_jsonl(tmp_path):
    path = tmp_path / "questions.jsonl"
    lines = [{"context": q.context, "options": q.options, "answer": q.answer} for q in QUESTIONS]
    path.write_text("\n\n".join(json.dumps(line) for line in lines) + "\n")
    assert read_questions(path) == QUESTIONS


GOOD = '{"context": "a", "options": ["b", "c"], "answer": 1}'


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("{", "Expecting"),
        ("[1]", "expected an object with context, options and answer, found list"),
        ('{"context": "a", "choices": []}', "found context, choices"),
        (GOOD.replace('"a"', "3"), "context is 3: expected text"),
        (GOOD.replace('["b", "c"]', '"bc"'), "options is 'bc': expected a list of texts"),
        (GOOD.replace('"b"', "1"), "expected a list of texts"),
        (GOOD.replace('"b", ', ""), "expected two or more"),
        (GOOD.replace('"b"', '""'), "none of them empty"),
        (GOOD.replace("1}", "2}"), "answer 2 of 2 options: expected an index from 0"),
        (GOOD.replace("1}", "true}"), "answer is True: expected the index"),
        (GOOD.replace("1}", '"b"}'), "answer is 'b': expected the index"),
    ],
)
def test_a_bad_line_is_named(tmp_path, line, said):
    path = tmp_path / "questions.jsonl"
    path.write_text(f"{GOOD}\n{line}\n")
    with pytest.raises(ValueError) as refused:
        read_questions(path)
    assert f"{path}:2: " in str(refused.value)
    assert said in str(refused.value)
    assert "\n" not in str(refused.value)


def test_an_absent_empty_or_foreign_file_is_named(tmp_path):
    path = tmp_path / "questions.jsonl"
    with pytest.raises(ValueError, match=r"questions\.jsonl cannot be read"):
        read_questions(path)
    path.write_text("\n")
    with pytest.raises(ValueError, match="holds no questions"):
        read_questions(path)
    path.write_bytes(b"\xff\xfe")
    with pytest.raises(ValueError, match="cannot be read"):
        read_questions(path)


# misuse


def test_no_questions_and_no_batch_are_refused(model, tokenizer):
    with pytest.raises(ValueError, match="no questions"):
        choose(model, tokenizer, [])
    with pytest.raises(ValueError, match="batch_size is 0"):
        choose(model, tokenizer, QUESTIONS, 0)


def test_an_option_longer_than_the_model_is_refused(model, tokenizer):
    with pytest.raises(ValueError, match=r"question 1: option 'xxxx.* has 30 tokens, the model reads 24"):
        choose(model, tokenizer, [QUESTIONS[0], Choice("a", ("x" * 30, "b"), 0)])


def test_a_tokenizer_with_nothing_to_begin_with_is_refused(model):
    bare = trained_tokenizer()
    bare.eos_token = None
    with pytest.raises(ValueError, match="question 0 has no context"):
        choose(model, bare, [Choice("", ("a", "b"), 0)])


def test_weights_that_are_not_numbers_are_refused(tokenizer):
    broken = presets.build(presets.configuration("neox-tiny", len(tokenizer), 24), seed=0)
    torch.nn.init.constant_(broken.lm_head.weight, float("nan"))
    with pytest.raises(ValueError, match=r"log-likelihood of option .* is nan"):
        choose(broken, tokenizer, QUESTIONS)
