"""Reading: vocabularies that a library would make up in silence. The rest is tested where it is used, by `load`."""

from __future__ import annotations

import json
import random
import shutil
from pathlib import Path

import pytest

from shoestring.models import reading

LINE = "the quick brown fox jumps over a lazy dog while steam engines pump water out of mines in england"


@pytest.fixture(scope="module")
def pieces(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A sentencepiece model such as T5's, learned from made-up lines."""
    sentencepiece = pytest.importorskip("sentencepiece")
    folder, draw = tmp_path_factory.mktemp("pieces"), random.Random(0)
    (folder / "lines").write_text("\n".join(" ".join(draw.choices(LINE.split(), k=12)) for _ in range(300)))
    ids = {"pad_id": 0, "eos_id": 1, "unk_id": 2, "bos_id": -1}
    sentencepiece.SentencePieceTrainer.train(
        input=str(folder / "lines"), model_prefix=str(folder / "m"), vocab_size=45, minloglevel=2, **ids
    )
    return folder / "m.model"


def slow(folder: Path, pieces: Path, name: str) -> Path:
    folder.mkdir()
    shutil.copy(pieces, folder / name)
    (folder / "config.json").write_text('{"model_type": "t5"}')
    (folder / "tokenizer_config.json").write_text(json.dumps({"tokenizer_class": "T5Tokenizer", "extra_ids": 0}))
    return folder


def test_a_slow_t5_tokenizer_is_the_one_in_the_file(
    pieces: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import sentencepiece

    # whichever protobuf stands beside it
    monkeypatch.setenv("TEMPORARILY_DISABLE_PROTOBUF_VERSION_CHECK", "true")
    found = reading.tokenizer(slow(tmp_path / "t5", pieces, "spiece.model"))
    theirs = sentencepiece.SentencePieceProcessor(model_file=str(pieces))
    for text in ("the lazy dog", "engines out of england", "a quick fox jumps"):
        assert found(text).input_ids == [*theirs.encode(text), 1]
        assert found.decode(found(text).input_ids, skip_special_tokens=True) == text
    assert (len(found), found.eos_token_id, found.pad_token_id) == (45, 1, 0)


def test_a_vocabulary_under_another_name_is_not_made_up(pieces: Path, tmp_path: Path) -> None:
    folder = slow(tmp_path / "t5", pieces, "sentencepiece.model")
    with pytest.raises(
        ValueError, match=r"a T5Tokenizer without its vocabulary: expected spiece.model or tokenizer.json"
    ):
        reading.tokenizer(folder)


def test_a_vocabulary_that_cannot_be_read_is_told_with_what_reads_it(tmp_path: Path) -> None:
    (tmp_path / "m").write_text("no pieces")
    folder = slow(tmp_path / "t5", tmp_path / "m", "spiece.model")
    with pytest.raises(ValueError, match=r"t5: the tokenizer cannot be read: .*needs sentencepiece, and a protobuf"):
        reading.tokenizer(folder)


def test_a_damaged_vocabulary_is_refused_and_a_bug_is_not_hidden(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from transformers import AutoTokenizer

    (tmp_path / "tokenizer.json").write_text("{}")

    def fail(error: BaseException) -> None:
        def from_pretrained(*_args: object, **_options: object) -> None:
            raise error

        monkeypatch.setattr(AutoTokenizer, "from_pretrained", from_pretrained)

    fail(Exception("token `ab` out of vocabulary"))
    with pytest.raises(ValueError, match="cannot be read: token `ab` out of vocabulary"):
        reading.tokenizer(tmp_path)
    fail(ZeroDivisionError("a bug"))
    with pytest.raises(ZeroDivisionError):
        reading.tokenizer(tmp_path)
