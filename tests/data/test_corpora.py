import errno
import gzip
import json
import os
from itertools import chain
from pathlib import Path

import pytest

from shoestring.data.corpora import documents, fingerprint, gathered, located, sides
from shoestring.data.splits import SPLITS

DATA = Path(os.environ.get("SHOESTRING_DATA", Path(__file__).parents[3] / "shared" / "data"))


def texts(source, split, **options):
    return [document.text for document in documents(str(source), split, **options)]


def rows(path, count, **fields):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps({"text": f"{path.name} {row}", **fields}) + "\n" for row in range(count)))


def test_files_named_after_their_split_are_that_split(tmp_path):
    for name in ("a_train", "a_valid", "a_test", "b_train"):
        (tmp_path / f"{name}.txt").write_text(name)
    assert texts(tmp_path, "train") == ["a_train", "b_train"]
    assert texts(tmp_path, "dev") == ["a_valid"]
    assert texts(tmp_path, "test") == ["a_test"]
    assert texts(tmp_path / "a_{split}.txt", "dev") == ["a_valid"]
    assert texts(tmp_path / "b_{split}.txt", "train") == ["b_train"]


def test_a_missing_test_set_is_half_of_dev(tmp_path):
    rows(tmp_path / "train.jsonl", 10)
    rows(tmp_path / "dev.jsonl", 200)
    dev, test = texts(tmp_path, "dev"), texts(tmp_path, "test")
    assert len(texts(tmp_path, "train")) == 10
    assert sorted(dev + test) == sorted(f"dev.jsonl {row}" for row in range(200))
    assert 70 < len(dev) < 130


def test_a_file_by_itself_is_cut_by_its_texts(tmp_path):
    rows(tmp_path / "a_train.jsonl", 1000)
    parts = {split: texts(tmp_path / "a_train.jsonl", split) for split in SPLITS}
    assert sorted(chain(*parts.values())) == sorted(f"a_train.jsonl {row}" for row in range(1000))
    assert len(parts["train"]) == pytest.approx(900, abs=35)
    assert min(len(parts["dev"]), len(parts["test"])) > 20


def test_identical_texts_stay_on_one_side_whatever_file_holds_them(tmp_path):
    for name in ("a", "b"):
        (tmp_path / f"{name}.jsonl").write_text("".join(f'{{"text": "{row}"}}\n' for row in range(400)))
    parts = [texts(tmp_path, split) for split in SPLITS]
    assert [sorted(part) for part in parts] == [sorted([*set(part), *set(part)]) for part in parts]
    assert sum(len(set(part)) for part in parts) == 400


def test_several_sources_are_read_as_a_folder_of_them_all(tmp_path):
    for name in ("a", "b_train", "c_dev", "d_test"):
        (tmp_path / f"{name}.txt").write_text(name)
    paths = [str(path) for path in sorted(tmp_path.iterdir())]
    for split in SPLITS:
        one = [document.text for document in gathered(paths, split)]
        assert one == texts(tmp_path, split)
        assert [document.text for document in gathered(["python", *paths], split)] == [*texts("python", split), *one]
        assert [document.text for document in gathered([*paths, "python"], split)] == [*one, *texts("python", split)]
    apart = [paths[1], paths[2], str(tmp_path / "d_{split}.txt")]
    assert [[document.text for document in gathered(apart, split)] for split in SPLITS] == [
        ["b_train"],
        ["c_dev"],
        ["d_test"],
    ]
    assert [document.text for document in gathered(paths[1:2], "train")] == texts(paths[1], "train")


def test_folders_that_are_named_after_splits_say_what_is_whose(tmp_path):
    """What lies above them says nothing: they may lie in a folder `test`."""
    above = tmp_path / "test"
    for name in ("train/a", "dev/a", "test/a"):
        (above / name).parent.mkdir(parents=True, exist_ok=True)
        (above / f"{name}.txt").write_text(name)
    for paths in ([above / split for split in SPLITS], [above / split / "a.txt" for split in SPLITS]):
        sources = [str(path) for path in paths]
        assert [[one.text for one in gathered(sources, split)] for split in SPLITS] == [
            ["train/a"],
            ["dev/a"],
            ["test/a"],
        ]
        assert sides(sources) == {"train": 1, "dev": 1, "test": 1}


def test_folders_of_other_names_say_nothing(tmp_path):
    for name in ("dev/proj/b", "Downloads/c", "dev/d"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        rows(tmp_path / f"{name}.jsonl", 200)
    for names in (("dev/proj/b", "Downloads/c"), ("dev/d", "Downloads/c"), ("dev/d", "dev/proj/b")):
        sources = [str(tmp_path / f"{name}.jsonl") for name in names]
        assert sides([*sources, "python"]) == {None: 2}
        assert len(list(gathered(sources, "train"))) > 300
    (tmp_path / "dev.txt").write_text("a dev text")
    assert sides(["python", str(tmp_path / "dev.txt")]) == {"dev": 1}
    assert sides([str(tmp_path / "dev.txt")]) == {None: 1}


def test_links_are_called_by_their_own_names(tmp_path):
    (tmp_path / "blobs").mkdir()
    for place, split in enumerate(SPLITS):
        (tmp_path / "blobs" / f"{place}.txt").write_text(split)
        (tmp_path / f"{split}.txt").symlink_to(tmp_path / "blobs" / f"{place}.txt")
    sources = [str(tmp_path / f"{split}.txt") for split in SPLITS]
    assert [[one.text for one in gathered(sources, split)] for split in SPLITS] == [[split] for split in SPLITS]
    (tmp_path / "blobs" / "latest.txt").symlink_to(tmp_path / "blobs" / "0.txt")
    assert (
        len(list(gathered([str(tmp_path / "blobs")], "train")) + list(gathered([str(tmp_path / "blobs")], "dev"))) > 0
    )
    with pytest.raises(ValueError, match="is named twice"):
        list(gathered([sources[0], str(tmp_path / "blobs" / "0.txt")], "train"))


def test_of_several_sources_none_needs_a_dev_part_of_its_own(tmp_path):
    for number in range(60):
        (tmp_path / f"{number}.txt").write_text(f"{number}")
    paths = [str(path) for path in sorted(tmp_path.iterdir())]
    parts = [{document.text for document in gathered(paths, split)} for split in SPLITS]
    assert sum(map(len, parts)) == len(set.union(*parts)) == 60
    assert min(map(len, parts)) > 0
    with pytest.raises(ValueError, match=r"0\.txt, .*1\.txt, .*10\.txt and 1 more: no dev text: what no name"):
        list(gathered(paths[:4], "dev"))
    assert [document.text for document in gathered([paths[0], "python"], "dev")] == texts("python", "dev")
    rows(tmp_path / "a.jsonl", 400)
    (tmp_path / "b.jsonl").write_text('{"body": "x"}\n' * 3)
    assert len(list(gathered([str(tmp_path / "a.jsonl")], "dev", text_field="text"))) > 0
    with pytest.raises(ValueError, match=r"b\.jsonl:1: no field 'text'; it has 'body'"):
        list(gathered([str(tmp_path / "a.jsonl"), str(tmp_path / "b.jsonl")], "dev"))


def test_a_dev_file_stays_whole_for_who_measures_no_test(tmp_path):
    (tmp_path / "text.txt").write_text("a text\n")
    for number in range(20):
        (tmp_path / "dev.txt").write_text(f"{number}")
        for sources in ([tmp_path], [tmp_path / "text.txt", tmp_path / "dev.txt"]):
            found = gathered([str(source) for source in sources], "dev", whole_dev=True)
            assert f"{number}" in [document.text for document in found]


def test_a_file_that_is_named_twice_is_refused(tmp_path):
    for name in ("a", "b"):
        (tmp_path / f"{name}.txt").write_text(name)
    with pytest.raises(ValueError, match=r"a\.txt is named twice, by itself or in a folder"):
        list(gathered([str(tmp_path), str(tmp_path / "." / "a.txt")], "train"))


def test_a_megabyte_of_plain_text_fills_each_split(tmp_path):
    paragraphs = [f"{number} " + "word " * 60 + "\n\n" for number in range(3500)]
    with gzip.open(tmp_path / "a.txt.gz", "wt") as file:
        file.write("".join(paragraphs))
    sizes = {split: sum(map(len, texts(tmp_path / "a.txt.gz", split))) for split in SPLITS}
    total = sum(map(len, paragraphs))
    assert sum(sizes.values()) == total
    assert 0.85 < sizes["train"] / total < 0.95
    assert min(sizes["dev"], sizes["test"]) > 0.02 * total


def test_domains_are_fields_folders_or_names(tmp_path):
    rows(tmp_path / "poems" / "one.jsonl", 100)
    rows(tmp_path / "train" / "news.jsonl", 1)
    rows(tmp_path / "letters_train-00000-of-00001.jsonl", 1)
    rows(tmp_path / "mixed_train.jsonl", 1, domain="speech")
    rows(tmp_path / "train.jsonl", 1)
    rows(tmp_path / "dev.jsonl", 1)
    found = {document.domain for document in documents(str(tmp_path), "train")}
    assert found == {"poems", "news", "letters", "speech", "text"}
    assert texts(tmp_path, "train", domains=["speech", "news"]) == ["mixed_train.jsonl 0", "news.jsonl 0"]


def test_other_files_in_a_folder_are_left_alone(tmp_path):
    (tmp_path / "a_train.txt").write_text("text")
    (tmp_path / "README.md").write_text("no text")
    (tmp_path / ".hidden_train.txt").write_text("no text")
    (tmp_path / ".git").mkdir()
    (tmp_path / ".git" / "b_train.txt").write_text("no text")
    (tmp_path / "c_dev.txt").write_text("dev")
    assert texts(tmp_path, "train") == ["text"]


def test_the_built_in_corpus():
    names = {split: {document.name for document in documents("python", split)} for split in SPLITS}
    assert "textwrap.py" in names["dev"]
    assert "queue.py" in names["test"]
    assert "email/message.py" in names["train"]
    assert not names["train"] & (names["dev"] | names["test"])
    assert {document.domain for document in documents("python", "dev", ["network", "text"])} == {"network", "text"}


def test_a_fingerprint_follows_names_splits_and_contents_but_not_the_place(tmp_path):
    for folder in ("here", "there"):
        rows(tmp_path / folder / "a.jsonl", 3)
        rows(tmp_path / folder / "b.jsonl", 3)
    here = fingerprint(str(tmp_path / "here"))
    assert len(here) == 16
    assert fingerprint(str(tmp_path / "there")) == here
    (tmp_path / "there" / "b.jsonl").rename(tmp_path / "there" / "c.jsonl")
    assert fingerprint(str(tmp_path / "there")) != here
    with (tmp_path / "here" / "a.jsonl").open("a") as file:
        file.write('{"text": "more"}\n')
    assert fingerprint(str(tmp_path / "here")) != here
    assert fingerprint("python") == fingerprint("python")


def test_one_file_cut_by_hash_is_not_the_folder_that_names_its_split(tmp_path):
    rows(tmp_path / "dev.jsonl", 3)
    assert fingerprint(str(tmp_path / "dev.jsonl")) != fingerprint(str(tmp_path))


@pytest.mark.parametrize("split", SPLITS)
def test_real_files(split):
    if not (DATA / "text").is_dir():
        pytest.skip("needs the data sets: name their folder in SHOESTRING_DATA")
    wiki = texts(DATA / "text" / "wikitext_{split}.txt.gz", split)
    genres = {document.domain for document in documents(str(DATA / "text" / "brown_by_genre.jsonl.gz"), split)}
    assert sum(map(len, wiki)) > (1_000_000 if split == "train" else 50_000)
    assert len(genres) > 3
    assert sum(map(len, texts(DATA / "text" / "tinyshakespeare_{split}.txt.gz", split))) > 10_000


def test_a_source_by_its_name_on_the_shelf(tmp_path, monkeypatch):
    text = tmp_path / "text" / "a_dev.txt"
    text.parent.mkdir()
    text.write_text("some")
    monkeypatch.setenv("SHOESTRING_DATA", str(tmp_path))
    assert located("text/a_dev.txt") == str(text)
    assert located("text/a_{split}.txt") == str(tmp_path / "text" / "a_{split}.txt")
    assert located("text/{split}/a.txt") == str(tmp_path / "text" / "{split}" / "a.txt")
    assert located(str(text)) == str(text)
    assert located("python") == "python"
    assert located("hf:nobody/nothing") == "hf:nobody/nothing"
    with pytest.raises(ValueError, match=r"^nowhere\.txt: no such file, nor in SHOESTRING_DATA"):
        located("nowhere.txt")


def test_a_file_that_may_not_be_read_is_named(tmp_path, monkeypatch):
    def forbidden(path, mode):
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(path))

    rows(tmp_path / "a.jsonl", 1)
    monkeypatch.setattr(Path, "open", forbidden)
    with pytest.raises(ValueError, match=r"a\.jsonl: cannot be read \(Permission denied\)"):
        fingerprint(str(tmp_path / "a.jsonl"))


def empty_file(path):
    (path / "a.txt").touch()
    return path / "a.txt"


def blank_file(path):
    (path / "a_dev.txt").write_text(" \n")
    return path / "a_{split}.txt"


def one_line(path):
    (path / "a.txt").write_text("one line")
    return path / "a.txt"


def unknown_suffix(path):
    (path / "a.docx").touch()
    return path / "a.docx"


@pytest.mark.parametrize(
    ("source", "message"),
    [
        (lambda path: path / "absent.txt", r"absent\.txt: no such file or folder"),
        (lambda path: path / "absent_{split}.txt", r"no file there: {split} was tried as train, training, dev"),
        (lambda path: path, r"no text in this folder: expected files ending in \.txt, \.jsonl, \.parquet"),
        (empty_file, r"a\.txt: the file is empty"),
        (blank_file, r"no dev text: what no name calls train, dev or test is cut"),
        (one_line, r"a\.txt: no dev text: .*: give more text, or a file named after dev$"),
        (unknown_suffix, r"a\.docx: unknown kind of file: expected \.txt, \.jsonl, \.parquet, each also with \.gz"),
        (lambda path: "hf:", r"names no data set: expected hf:NAME"),
    ],
)
def test_misuse_is_named_in_one_line(tmp_path, source, message):
    with pytest.raises(ValueError, match=message) as raised:
        texts(source(tmp_path), "dev")
    assert "\n" not in str(raised.value)


def test_an_unknown_domain_or_split_is_named():
    with pytest.raises(ValueError, match=r"python: no dev text in the domain netwrok; it has .*network"):
        texts("python", "dev", domains=["network", "netwrok"])
    with pytest.raises(ValueError, match="no domain is named"):
        texts("python", "dev", domains=[])
    with pytest.raises(ValueError, match="no split 'valid': expected one of train, dev, test"):
        texts("python", "valid")
