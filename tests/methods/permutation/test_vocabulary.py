"""Vocabularies of three kinds, made here, and SentencePiece files that are whole, torn and foreign."""

from __future__ import annotations

import io
import random
import sys
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from transformers import BertTokenizerFast, PreTrainedTokenizerFast

from shoestring.data import tokenizers
from shoestring.methods.permutation.vocabulary import Vocabulary, marks, opened, prepared, unknown_id

ENGLISH = "the cat dog sat on mat log then and house runs over lazy quick brown fox jumps hello world don't"
WORDS = ENGLISH.split()
PICK = random.Random(0)
TEXTS = [" ".join(PICK.choice(WORDS) for _ in range(8)).capitalize() + PICK.choice(".?!") for _ in range(600)]


def trained(kind: str, pieces: int, **options: object) -> bytes:
    sentencepiece = pytest.importorskip("sentencepiece")
    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(TEXTS), model_writer=model, vocab_size=pieces, model_type=kind, minloglevel=2, **options
    )
    return model.getvalue()


@pytest.fixture(scope="module")
def piece_model() -> bytes:
    return trained("unigram", 90, control_symbols=["<cls>", "<sep>", "<pad>"])


@pytest.fixture(scope="module")
def pieces(piece_model: bytes, tmp_path_factory: pytest.TempPathFactory) -> PreTrainedTokenizerFast:
    path = tmp_path_factory.mktemp("pieces") / "english.model"
    path.write_bytes(piece_model)
    return opened(str(path), [])


def bpe() -> PreTrainedTokenizerFast:
    return prepared(tokenizers.train_bpe(TEXTS, 300))[0]


def words(tokenizer: PreTrainedTokenizerFast, text: str) -> list[str]:
    """The text as words, a bar before each."""
    ids = tokenizer.encode(text, add_special_tokens=False)
    known = marks(tokenizer)
    starts = known.starts_word[ids]
    starts[1:] |= known.closes_word[ids[:-1]]
    parts: list[list[int]] = []
    for number, first in zip(ids, starts, strict=True):
        if first or not parts:
            parts.append([])
        parts[-1].append(number)
    return [tokenizer.decode(part) for part in parts]


def of(known: NDArray[np.bool_], tokenizer: PreTrainedTokenizerFast) -> set[str]:
    return set(tokenizer.convert_ids_to_tokens(np.flatnonzero(known).tolist()))


def test_a_bpe_gets_what_it_lacks_and_a_second_time_nothing() -> None:
    tokenizer = tokenizers.train_bpe(TEXTS, 300)
    same, added = prepared(tokenizer)
    assert same is tokenizer
    assert added == 3
    assert prepared(tokenizer)[1] == 0
    vocabulary = Vocabulary.of(tokenizer)
    assert (vocabulary.eos, vocabulary.sep, vocabulary.cls, vocabulary.pad, vocabulary.size) == (
        299,
        300,
        301,
        302,
        303,
    )
    assert len(vocabulary.starts_word) == len(vocabulary.closes_word) == len(vocabulary.ends_sentence) == 303
    assert tokenizer.decode([300, 301, 302], skip_special_tokens=True) == ""


def test_words_of_a_byte_level_bpe() -> None:
    assert words(bpe(), "The cat isn't on\nthe mats.") == [
        "The",
        " cat",
        " isn",
        "'t",
        " on",
        "\n",
        "the",
        " mats",
        ".",
    ]
    assert words(bpe(), "naïve 你 café") == ["naïve", " 你", " café"]


def test_words_of_bytes() -> None:
    tokenizer = tokenizers.byte_tokenizer()
    assert words(tokenizer, "the cat, é\tx\n\ny") == ["the", " cat", ",", " é", "\t", "x", "\n", "\n", "y"]


def test_words_of_sentencepiece(pieces: PreTrainedTokenizerFast) -> None:
    assert [word.strip() for word in words(pieces, "The cat don't run.")] == ["The", "cat", "don", "'t", "run", "."]


def test_words_of_wordpiece() -> None:
    tokens = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "the", "cat", "##s", ".", "##.", '"']
    tokenizer = BertTokenizerFast(vocab={token: number for number, token in enumerate(tokens)})
    known = marks(tokenizer)
    assert of(~known.starts_word, tokenizer) == {"##s"}
    assert of(known.ends_sentence, tokenizer) == {".", "##."}
    assert of(known.closes_word, tokenizer) == {"[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"}
    with pytest.raises(
        ValueError, match=r"the tokenizer has no eos_token: expected sep, cls, pad and eos tokens; tokenizer\.add"
    ):
        Vocabulary.of(tokenizer)


def test_words_of_whole_words() -> None:
    from tokenizers import Tokenizer, models, pre_tokenizers

    known = {"<unk>": 0, "the": 1, "cat": 2, ".": 3}
    backend = Tokenizer(models.WordLevel(known, unk_token="<unk>"))
    backend.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=backend, unk_token="<unk>", eos_token="<unk>")
    vocabulary = Vocabulary.of(prepared(tokenizer)[0])
    assert vocabulary.starts_word.all()
    assert vocabulary.ends_sentence.tolist() == [True, False, False, True, False, False, False]


def test_words_of_a_bpe_that_marks_their_ends() -> None:
    from tokenizers import Tokenizer, models, pre_tokenizers, trainers

    backend = Tokenizer(models.BPE(end_of_word_suffix="</w>"))
    backend.pre_tokenizer = pre_tokenizers.Whitespace()
    backend.train_from_iterator(TEXTS, trainers.BpeTrainer(vocab_size=80, end_of_word_suffix="</w>"))
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=backend)
    found = [word.replace(" ", "").replace("</w>", "") for word in words(tokenizer, "the lazy cats sat on mat.")]
    assert found == ["the", "lazy", "cats", "sat", "on", "mat", "."]
    assert "." in {token.removesuffix("</w>") for token in of(marks(tokenizer).ends_sentence, tokenizer)}


def test_words_of_bytes_that_mark_their_ends() -> None:
    """As CLIP's."""
    from tokenizers import Tokenizer, models, pre_tokenizers, trainers

    backend = Tokenizer(models.BPE(end_of_word_suffix="</w>"))
    backend.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.WhitespaceSplit(), pre_tokenizers.ByteLevel(False)])
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=600, end_of_word_suffix="</w>", initial_alphabet=alphabet)
    backend.train_from_iterator(["naïve you café…"] * 9, trainer)
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=backend)
    known = marks(tokenizer)
    assert "you</w>" in of(known.closes_word, tokenizer)
    assert not {"you</w>", "Ã", "©", "¯"} & of(known.starts_word, tokenizer), "as letters of another alphabet are not"
    assert "âĢ¦</w>" in of(known.ends_sentence, tokenizer)


def test_what_ends_a_sentence(pieces: PreTrainedTokenizerFast) -> None:
    assert of(Vocabulary.of(pieces).ends_sentence, pieces) == {".", "!", "?", "</s>"}
    texts = ['He "ran." The end.\n', "So?) No!' Yes."] * 300
    tokenizer = prepared(tokenizers.train_bpe(texts, 275))[0]
    ends = of(Vocabulary.of(tokenizer).ends_sentence, tokenizer)
    assert {".", "?", "!", "Ċ", '."', "<|endoftext|>"} <= ends
    assert not {'"', ")", "Ġ", "<sep>", "<cls>", "<pad>"} & ends


def test_special_tokens_are_words_of_their_own() -> None:
    tokenizer = bpe()
    vocabulary = Vocabulary.of(tokenizer)
    for number in (vocabulary.sep, vocabulary.cls, vocabulary.pad, vocabulary.eos):
        assert vocabulary.starts_word[number]
        assert vocabulary.closes_word[number]


def test_a_sentencepiece_file_is_read_as_its_own_library_reads_it(
    piece_model: bytes, pieces: PreTrainedTokenizerFast
) -> None:
    sentencepiece = pytest.importorskip("sentencepiece")
    reader = sentencepiece.SentencePieceProcessor(model_proto=piece_model)
    assert len(pieces) >= reader.get_piece_size() == 90
    for text in TEXTS[:50]:
        assert pieces.encode(text, add_special_tokens=False) == reader.encode(text)
    assert prepared(pieces)[1] == 0
    vocabulary = Vocabulary.of(pieces)
    assert [reader.id_to_piece(one) for one in (vocabulary.cls, vocabulary.sep, vocabulary.eos)] == [
        "<cls>",
        "<sep>",
        "</s>",
    ]
    assert [ids.tolist() for ids in tokenizers.encoder(pieces)(TEXTS[:3])] == reader.encode(TEXTS[:3])


def test_it_is_saved_and_loaded(pieces: PreTrainedTokenizerFast, tmp_path: Path) -> None:
    pieces.save_pretrained(tmp_path)
    loaded = opened(str(tmp_path), [])
    assert loaded.encode(TEXTS[0]) == pieces.encode(TEXTS[0])
    assert Vocabulary.of(loaded).starts_word.tolist() == Vocabulary.of(pieces).starts_word.tolist()


def test_a_recipe_names_any_other_tokenizer_too() -> None:
    assert len(opened("bytes", [])) == 257
    assert len(opened("bpe:270", TEXTS)) == 270


def test_what_is_unknown_is_told_from_the_end_of_a_text() -> None:
    tokenizer = bpe()
    assert unknown_id(tokenizer) is None, "bytes know all"
    tokenizer.unk_token = tokenizer.eos_token
    assert unknown_id(tokenizer) is None, "as GPT-2 has it"
    tokenizer.add_special_tokens({"unk_token": "<unk>"})
    assert unknown_id(tokenizer) == tokenizer.unk_token_id == 303


def test_torn_files_are_refused(piece_model: bytes, tmp_path: Path) -> None:
    path = tmp_path / "torn.model"
    for length in [*range(0, 3000, 13), *range(3000, len(piece_model), 7919), len(piece_model) - 1]:
        path.write_bytes(piece_model[:length])
        with pytest.raises(ValueError, match=r"torn\.model: (not a SentencePiece model|a torn Sent)"):
            opened(str(path), [])


def test_foreign_and_absent_files_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "foreign.model"
    with pytest.raises(ValueError, match=r"foreign\.model: no such file"):
        opened(str(path), [])
    path.write_text("hello " * 100)
    with pytest.raises(ValueError, match=r"foreign\.model: not a SentencePiece model"):
        opened(str(path), [])
    path.write_bytes(trained("bpe", 90))
    with pytest.raises(ValueError, match="of another kind: expected one trained by model_type=unigram"):
        opened(str(path), [])


@pytest.mark.parametrize("module", ["sentencepiece", "google.protobuf.message"])
def test_without_the_libraries_the_install_line_is_given(
    module: str, piece_model: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "a.model").write_bytes(piece_model)
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(ValueError, match=r'need sentencepiece and protobuf: pip install "shoestring\[permutation\]"'):
        opened(str(tmp_path / "a.model"), [])


@pytest.mark.parametrize("name", ["sep", "cls", "pad"])
def test_a_vocabulary_without_a_special_token_is_refused(name: str) -> None:
    tokenizer = bpe()
    setattr(tokenizer, f"{name}_token", None)
    with pytest.raises(ValueError, match=rf'has no {name}_token: .*"{name}_token": "<{name}>"}}\) gives it one'):
        Vocabulary.of(tokenizer)


def test_a_vocabulary_of_another_kind_is_refused() -> None:
    from tokenizers import Tokenizer, models

    tokenizer = PreTrainedTokenizerFast(tokenizer_object=Tokenizer(models.BPE({"a": 0, "b": 1}, [])))
    with pytest.raises(ValueError, match="a BPE vocabulary: expected SentencePiece, byte-level BPE, WordPiece, WordL"):
        marks(tokenizer)
