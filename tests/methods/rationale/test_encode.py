"""Lessons as tokens and batches: what is kept of a long text, what a decoder is scored on, and that text stays text."""

from __future__ import annotations

import copy
import pickle

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from tokenizers.processors import TemplateProcessing
from torch import nn
from transformers import BartConfig, BartForConditionalGeneration, PreTrainedTokenizerFast

from shoestring.data import tokenizers
from shoestring.methods.rationale.encode import (
    IGNORED,
    Coder,
    Family,
    Pair,
    batch,
    check_room,
    family,
    language_model,
    padded,
)
from shoestring.methods.rationale.examples import Example
from shoestring.methods.rationale.lessons import Lesson, Wording, lessons
from shoestring.models import presets, seq2seq

END, LINE = 256, 10
FAMILIES: list[Family] = ["encoder-decoder", "decoder"]
BYTES = tokenizers.byte_tokenizer()
TEXTS = st.text(st.characters(exclude_categories=["Cs"]), max_size=40)


def coder(kind: Family, source: int = 16, target: int = 8, tokenizer: PreTrainedTokenizerFast = BYTES) -> Coder:
    return Coder(tokenizer, kind, source, target)


def words() -> PreTrainedTokenizerFast:
    return tokenizers.train_bpe(
        ["the cat sat on the mat, the dog sat on the log; naïve café 東京 <|endoftext|>"] * 3, 300
    )


WORDS = words()

# by hand


def test_an_encoders_source_ends_with_the_end_of_text_and_a_decoders_with_a_line() -> None:
    (pair,) = coder("encoder-decoder").pairs([Lesson("ab", "c")])
    assert pair == Pair([97, 98, END], [99, END])
    (pair,) = coder("decoder").pairs([Lesson("ab", "c")])
    assert pair == Pair([97, 98, LINE], [99, END])


@pytest.mark.parametrize("kind", FAMILIES)
def test_of_what_is_too_long_the_middle_is_left_out(kind: Family) -> None:
    (source,) = coder(kind, source=10).sources(["abcdefghijklmnop"])
    assert bytes(source[:-1]) == b"abcde" + b"mnop"
    (source,) = coder(kind, source=9).sources(["abcdefghijklmnop"])
    assert bytes(source[:-1]) == b"abcd" + b"mnop"
    (source,) = coder(kind, source=10).sources(["abcdefghi"])
    assert bytes(source[:-1]) == b"abcdefghi", "it just fits"


@pytest.mark.parametrize("kind", FAMILIES)
def test_targets_are_cut_and_always_end(kind: Family) -> None:
    assert coder(kind, target=4).targets(["abc", "abcd", "", "a"]) == [
        [97, 98, 99, END],
        [97, 98, 99, END],
        [END],
        [97, END],
    ]


@pytest.mark.parametrize("kind", FAMILIES)
def test_nothing_to_read_and_nothing_to_encode(kind: Family) -> None:
    assert coder(kind).sources([""]) == [[END if kind == "encoder-decoder" else LINE]]
    assert coder(kind).sources([]) == coder(kind).targets([]) == coder(kind).pairs([]) == []


def test_what_was_written_is_read_up_to_its_end() -> None:
    one = coder("decoder")
    assert one.text([32, 97, 98, 32, END, 99]) == "ab"
    assert one.text([97, 98]) == "ab"
    assert one.text([END, 97]) == one.text([]) == ""


@pytest.mark.parametrize("tokenizer", [BYTES, words()], ids=["bytes", "bpe"])
@pytest.mark.parametrize("kind", FAMILIES)
def test_letters_of_a_special_token_stay_letters(kind: Family, tokenizer: PreTrainedTokenizerFast) -> None:
    one = coder(kind, 64, 64, tokenizer)
    text = f"a {tokenizers.EOS} b"
    (pair,) = one.pairs([Lesson(text, text)])
    assert pair.target.count(one.end) == 1
    assert pair.source.count(one.end) == (1 if kind == "encoder-decoder" else 0)
    assert one.text(pair.target) == text


def test_a_tokenizers_own_start_stands_before_a_decoders_source() -> None:
    tokenizer = words()
    start = tokenizer.bos_token_id
    tokenizer.backend_tokenizer.post_processor = TemplateProcessing(
        single=f"{tokenizers.EOS} $A", special_tokens=[(tokenizers.EOS, start)]
    )
    (plain,) = coder("decoder", tokenizer=words()).sources(["the cat"])
    (started,) = coder("decoder", tokenizer=tokenizer).sources(["the cat"])
    assert started == [start, *plain]
    (encoders,) = coder("encoder-decoder", tokenizer=tokenizer).sources(["the cat"])
    assert encoders[0] != start
    (target,) = coder("decoder", tokenizer=tokenizer).targets(["the"])
    assert start not in target[:-1]
    (long,) = coder("decoder", source=12, tokenizer=tokenizer).sources(["the cat sat on the mat " * 9])
    assert (len(long), long[0]) == (12, start)


@pytest.mark.parametrize("kind", FAMILIES)
def test_of_a_reason_that_is_too_long_the_label_after_it_is_kept(kind: Family) -> None:
    one = coder(kind, target=8)
    whole, cut, none, label = one.pairs(
        [Lesson("x", "abc", "=yes"), Lesson("x", "abcdefgh", "=yes"), Lesson("x", "", "=yes"), Lesson("x", "abcdefgh")]
    )
    assert whole.target == cut.target == [*b"abc=yes", END]
    assert none.target == [*b"=yes", END]
    assert label.target == [*b"abcdefg", END]
    (long,) = one.pairs([Lesson("x", "abc", "=a long label")])
    assert long.target == [*b"=a long", END], "what does not fit at all is cut as ever"


@pytest.mark.parametrize(("source", "target"), [(7, 8), (8, 1), (0, 0)])
def test_no_room_for_a_lesson(source: int, target: int) -> None:
    with pytest.raises(ValueError, match=rf"{source} source and {target} target tokens: expected 8 and 2 or more"):
        coder("decoder", source, target)


def test_another_family_is_refused() -> None:
    with pytest.raises(ValueError, match="the family 'encdec': expected one of encoder-decoder, decoder"):
        coder("encdec", 8, 8)  # type: ignore[arg-type]


def test_an_encoder_decoders_batch() -> None:
    found = batch([Pair([1, 2, 9], [5, 9]), Pair([3, 9], [6, 7, 9])], "encoder-decoder", 9)
    assert {name: tensor.tolist() for name, tensor in found.items()} == {
        "input_ids": [[1, 2, 9], [3, 9, 9]],
        "attention_mask": [[1, 1, 1], [1, 1, 0]],
        "labels": [[5, 9, IGNORED], [6, 7, 9]],
    }
    assert all(tensor.dtype == torch.int64 for tensor in found.values())


def test_a_decoders_batch() -> None:
    found = batch([Pair([1, 2, 8], [5, 9]), Pair([3, 8], [6, 9])], "decoder", 9)
    assert {name: tensor.tolist() for name, tensor in found.items()} == {
        "input_ids": [[1, 2, 8, 5, 9], [3, 8, 6, 9, 9]],
        "labels": [[IGNORED, IGNORED, IGNORED, 5, 9], [IGNORED, IGNORED, 6, 9, IGNORED]],
        # the first row is written from columns 2 and 3, the second from 1 and 2
        "scored": [2, 3, 6, 7],
    }


def test_the_language_model_is_found_inside_its_wrappers() -> None:
    small = {"num_layers": 1, "d_model": 16, "num_heads": 1, "d_ff": 16}
    model = seq2seq.build(seq2seq.configuration("t5-tiny", 257, **small), 0)
    assert language_model(nn.Sequential(nn.Sequential(model))) is model
    assert language_model(torch.compile(model, backend="eager")) is model
    assert family(nn.Sequential(model)) == "encoder-decoder"
    shape = {"num_hidden_layers": 1, "hidden_size": 16, "intermediate_size": 16}
    assert family(presets.build(presets.configuration("neox-tiny", 257, 8, **shape), 0)) == "decoder"
    with pytest.raises(ValueError, match=r"a Linear is no Hugging Face model: expected one that `from_pretrained`"):
        family(nn.Linear(2, 2))


# against a reference


def test_they_are_the_ids_that_hugging_face_gives() -> None:
    tokenizer = words()
    texts = ["the cat sat", "naïve café", "東京 <|endoftext|>", "", "\n\n x"]
    theirs = [tokenizer(text, add_special_tokens=False, split_special_tokens=True).input_ids for text in texts]
    assert coder("encoder-decoder", 99, 99, tokenizer).targets(texts) == [
        [*ids, tokenizer.eos_token_id] for ids in theirs
    ]


@given(
    st.lists(st.tuples(st.integers(1, 9), st.integers(1, 9)), min_size=1, max_size=5),
    st.randoms(use_true_random=False),
)
def test_scored_are_the_positions_that_are_needed_and_no_other(sizes: list[tuple[int, int]], chance: object) -> None:
    pairs = [Pair([row + 1] * source, [row + 101] * target) for row, (source, target) in enumerate(sizes)]
    found = batch(pairs, "decoder", 0)
    width = found["input_ids"].shape[1]
    assert width == max(source + target for source, target in sizes)
    # the token after it is the row's target
    needed = [
        row * width + column
        for row, (source, target) in enumerate(sizes)
        for column in range(width)
        if source <= column + 1 < source + target
    ]
    assert found["scored"].tolist() == needed
    for row, pair in enumerate(pairs):
        assert found["input_ids"][row][: len(pair.source) + len(pair.target)].tolist() == [*pair.source, *pair.target]
        kept = found["labels"][row]
        assert kept[kept != IGNORED].tolist() == pair.target


# property


@given(st.lists(TEXTS, max_size=5), st.sampled_from(FAMILIES))
def test_what_is_encoded_is_read_again(texts: list[str], kind: Family) -> None:
    one = coder(kind, 512, 512)
    assert [one.text(target) for target in one.targets(texts)] == [text.strip() for text in texts]
    assert [bytes(source[:-1]).decode() for source in one.sources(texts)] == texts


@given(TEXTS, st.integers(8, 40), st.integers(2, 20), st.sampled_from(FAMILIES))
def test_start_and_end_are_kept_and_nothing_is_longer_than_asked(
    text: str, source: int, target: int, kind: Family
) -> None:
    whole, room = list(text.encode()), source - 1
    (read,) = coder(kind, source, target).sources([text])
    assert len(read) == min(len(whole), room) + 1
    assert read[-1] == (END if kind == "encoder-decoder" else LINE)
    if len(whole) <= room:
        assert read[:-1] == whole
    else:
        start = room - room // 2
        assert read[:start] == whole[:start]
        assert read[start:-1] == whole[len(whole) - room // 2 :]
    (written,) = coder(kind, source, target).targets([text])
    assert written == [*whole[: target - 1], END]


@given(TEXTS, TEXTS, st.integers(2, 60), st.sampled_from(FAMILIES), st.booleans())
def test_a_single_tasks_label_stands_at_the_end_however_long_its_reason(
    reason: str, label: str, target: int, kind: Family, trained: bool
) -> None:
    one = coder(kind, 16, target, WORDS if trained else BYTES)
    taught = Example("x", label, rationale=reason if reason.strip() else "r")
    (lesson,) = lessons([taught], "single-task", Wording())["label"]
    (pair,) = one.pairs([lesson])
    ending, body = (one.targets([text])[0][:-1] for text in (lesson.ending, lesson.target))
    ((*ids, end),) = coder(kind, 16, 10_000, one.tokenizer).targets([lesson.ending])
    assert end == pair.target[-1] == one.end
    assert len(pair.target) <= target
    if len(ids) <= target - 1:
        assert ending == ids
        assert pair.target[-len(ids) - 1 : -1] == ids, "the marker and the label, whole"
        before = pair.target[: -len(ids) - 1]
        assert before == body[: len(before)]
        assert len(pair.target) == target or one.text(pair.target).startswith(lesson.target.strip())
    else:
        assert pair.target[:-1] == ids[: target - 1]


def small(kind: str, positions: int) -> nn.Module:
    if kind == "t5":
        return seq2seq.build(seq2seq.configuration("t5-tiny", 257, num_layers=1, d_model=16, num_heads=1, d_ff=16), 0)
    if kind == "bart":
        sides = {
            f"{side}_{what}": 1 for side in ("encoder", "decoder") for what in ("layers", "attention_heads", "ffn_dim")
        }
        return BartForConditionalGeneration(
            BartConfig(vocab_size=257, d_model=8, max_position_embeddings=positions, **sides)
        )
    if kind == "neox":
        shape = {"num_hidden_layers": 1, "hidden_size": 16, "intermediate_size": 16}
        return presets.build(presets.configuration("neox-tiny", 257, positions, **shape), 0)
    shape = {"n_embd": 16, "n_layer": 1, "n_head": 1}
    return presets.build(presets.configuration("gpt2-small", 257, positions, **shape), 0)


@pytest.mark.parametrize(
    ("kind", "fitting", "too_many", "said"),
    [
        ("gpt2", [(24, 8), (8, 24)], [(24, 9), (33, 2)], r"gpt2 has 32 positions for both together: ask for fewer$"),
        ("neox", [(24, 8), (8, 24)], [(24, 9), (33, 2)], r"gpt_neox has 32 positions for both together: ask for"),
        ("bart", [(32, 32)], [(33, 2), (8, 33)], r"bart has 32 positions a side: ask for fewer$"),
        ("t5", [(10_000, 10_000)], [], ""),
    ],
)
def test_what_does_not_fit_a_models_positions_is_refused(
    kind: str, fitting: list[tuple[int, int]], too_many: list[tuple[int, int]], said: str
) -> None:
    model = small(kind, 32)
    for sizes in fitting:
        check_room(model, *sizes)
        check_room(nn.Sequential(model), *sizes)
    for source, target in too_many:
        with pytest.raises(ValueError, match=rf"^{source} tokens to read and {target} to write: the {said}"):
            check_room(model, source, target)


@pytest.mark.parametrize("kind", FAMILIES)
def test_a_hundred_kilobytes(kind: Family) -> None:
    text = "[label] " + "œuvre 東京 🙂 " * 5_000 + "is it?"
    (pair,) = coder(kind, 64, 32).pairs([Lesson(text, text)])
    assert (len(pair.source), len(pair.target)) == (64, 32)
    assert bytes(pair.source[:8]) == b"[label] "
    assert bytes(pair.source[-7:-1]) == b"is it?"
    coder(kind).text(pair.target)  # half a character at its end is no error


def test_padding_is_on_the_right() -> None:
    assert padded([[1], [2, 3], []], 7).tolist() == [[1, 7], [2, 3], [7, 7]]


def test_a_coder_that_was_used_is_pickled_and_copied() -> None:
    one = coder("decoder")
    before = one.sources(["abc"])
    assert pickle.dumps(one)
    again = copy.deepcopy(one)
    assert again.sources(["abc"]) == before
    assert (again.family, again.source_tokens, again.target_tokens) == ("decoder", 16, 8)


def test_a_tokenizer_is_made_ready_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """That takes a tenth of a second where the vocabulary is large."""
    made = []
    encoder = tokenizers.encoder
    monkeypatch.setattr(tokenizers, "encoder", lambda tokenizer: made.append(tokenizer) or encoder(tokenizer))
    one = coder("decoder", tokenizer=words())
    for text in ("a", "b", "c"):
        one.sources([text])
        one.targets([text])
    assert len(made) == 1
