"""Images from each form they may come in, on arrays whose values are known, and on real ones."""

from __future__ import annotations

import io
import os
import pickle
import random
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from shoestring.methods.search.images import images, labelled

SHARED = Path(__file__).parents[3] / ".." / "shared" / "data"
REAL = Path(os.environ.get("SHOESTRING_DATA", SHARED)) / "search" / "cifar10_train6000_jpeg.npz"


def pixels(count: int = 6, height: int = 8, width: int = 8) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (count, height, width, 3), dtype=np.uint8)


def jpeg(image: np.ndarray) -> bytes:
    file = io.BytesIO()
    Image.fromarray(image).save(file, "JPEG", quality=95)
    return file.getvalue()


def joined(path: Path, files: list[bytes], **more: object) -> Path:
    offsets = np.cumsum([0, *map(len, files)])
    arrays = {"jpeg": np.frombuffer(b"".join(files), dtype=np.uint8), "offsets": offsets} | more
    np.savez(path, **arrays)
    return path


def test_two_images_by_hand(tmp_path):
    """Channels of 0 and 2, 0 and 4, 6 and 8: all become -1 and 1, up to the sample's sd."""
    array = np.zeros((2, 1, 1, 3), dtype=np.uint8)
    array[:, 0, 0] = [[0, 0, 6], [2, 4, 8]]
    np.save(tmp_path / "a.npy", array)
    found = images(tmp_path / "a.npy", 2, side=1)
    assert found.shape == (2, 3, 1, 1)
    assert found.dtype == torch.float32
    assert sorted(found[:, 0, 0, 0].tolist()) == pytest.approx([-(0.5**0.5), 0.5**0.5])
    assert torch.equal(found[:, 0], found[:, 1])
    assert torch.equal(found[:, 0], found[:, 2])


def test_the_forms_agree(tmp_path):
    """The same pixels as a folder of PNGs, as arrays of either order, integers or floats."""
    array = pixels()
    np.save(tmp_path / "last.npy", array)
    np.savez(tmp_path / "first.npz", images=array.transpose(0, 3, 1, 2), labels=np.arange(6))
    np.save(tmp_path / "floats.npy", array / 255)
    folder = tmp_path / "folder" / "deep"
    folder.mkdir(parents=True)
    for place, image in enumerate(array):
        Image.fromarray(image).save(folder / f"{place}.png")
    expected = images(tmp_path / "last.npy", 6, side=8)
    for other in ("first.npz", "floats.npy", "folder"):
        torch.testing.assert_close(images(tmp_path / other, 6, side=8), expected, rtol=0, atol=1e-5)


def test_jpegs_are_decoded_as_pillow_does(tmp_path):
    files = [jpeg(image) for image in pixels()]
    path = joined(tmp_path / "a.npz", files, labels=np.arange(10, 16, dtype=np.uint8))
    found, labels = labelled(path, 6, side=8)
    decoded = np.stack([np.array(Image.open(io.BytesIO(files[label - 10]))) for label in labels.tolist()])
    slow = decoded.transpose(0, 3, 1, 2).astype(np.float64)
    slow = (slow - slow.mean((0, 2, 3), keepdims=True)) / slow.std((0, 2, 3), keepdims=True, ddof=1)
    assert np.allclose(found.numpy(), slow, atol=1e-5)
    assert labels.dtype == torch.int64
    assert sorted(labels.tolist()) == list(range(10, 16))


def test_each_channel_has_mean_nought_and_sd_one(tmp_path):
    np.save(tmp_path / "a.npy", pixels(20))
    found = images(tmp_path / "a.npy", 10)
    assert found.shape == (10, 3, 32, 32)
    assert found.mean((0, 2, 3)).tolist() == pytest.approx([0, 0, 0], abs=1e-5)
    assert found.std((0, 2, 3)).tolist() == pytest.approx([1, 1, 1], abs=1e-4)


def test_the_middle_square_is_taken(tmp_path):
    array = pixels(3, 4, 10)
    np.save(tmp_path / "wide.npy", array)
    np.save(tmp_path / "square.npy", array[:, :, 3:7])
    assert torch.equal(images(tmp_path / "wide.npy", 3, side=4), images(tmp_path / "square.npy", 3, side=4))


def test_the_seed_chooses_and_nothing_else_is_touched(tmp_path):
    np.save(tmp_path / "a.npy", pixels(50))
    before = torch.get_rng_state(), random.getstate()
    first = images(tmp_path / "a.npy", 5, side=8)
    assert torch.equal(first, images(tmp_path / "a.npy", 5, side=8))
    assert not torch.equal(first, images(tmp_path / "a.npy", 5, side=8, seed=1))
    assert torch.equal(torch.get_rng_state(), before[0])
    assert random.getstate() == before[1]


def test_a_folder_a_class_gives_labels(tmp_path):
    for name in ("cat", "dog"):
        (tmp_path / name / "more").mkdir(parents=True)
        for place, image in enumerate(pixels(3) // (1 + (name == "dog"))):
            Image.fromarray(image).save(tmp_path / name / "more" / f"{place}.png")
    drawn, labels = labelled(tmp_path, 6, side=8)
    bright = drawn.mean((1, 2, 3)) > 0
    assert labels.tolist() == (~bright).long().tolist()
    assert sorted(labels.tolist()) == [0, 0, 0, 1, 1, 1]


@pytest.mark.skipif(not REAL.exists(), reason=f"{REAL} is not there: set SHOESTRING_DATA")
def test_real_images():
    found, labels = labelled(REAL, 128)
    assert found.shape == (128, 3, 32, 32)
    assert set(labels.tolist()) == set(range(10))
    assert len(torch.unique(found.flatten(1), dim=0)) == 128


class Evil:
    def __reduce__(self):
        return os.mkdir, ("evil",)


def test_nothing_read_is_run(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    np.save("evil.npy", np.array([Evil()], dtype=object), allow_pickle=True)
    np.savez("evil.npz", images=np.array([Evil()], dtype=object))
    batches = tmp_path / "cifar-10-batches-py"
    batches.mkdir()
    (batches / "data_batch_1").write_bytes(pickle.dumps(Evil()))
    for name, told in [
        ("evil.npy", "pickled objects, which are not read"),
        ("evil.npz", "pickled objects, which are not read"),
        ("cifar-10-batches-py", "holds CIFAR as pickles; a pickle runs what is in it"),
        ("cifar-10-batches-py/data_batch_1", "a pickle runs what is in it"),
    ]:
        with pytest.raises(ValueError, match=told):
            images(name, 2)
    assert not Path("evil").exists()


def make(path: Path, what: str) -> None:
    if what == "torn jpeg":
        files = [jpeg(image) for image in pixels(4, 32, 32)]
        joined(path, [*files[:3], files[3][: len(files[3]) // 2]])
    elif what == "no jpeg":
        joined(path, [b"text" * 9, *(jpeg(image) for image in pixels(2))])
    elif what == "torn offsets":
        joined(path, [jpeg(image) for image in pixels(3)], offsets=np.array([0, 5, 9]))
    elif what == "no offsets":
        np.savez(path, jpeg=np.zeros(9, dtype=np.uint8))
    elif what == "torn zip":
        np.savez(path, images=pixels())
        path.write_bytes(path.read_bytes()[:200])
    elif what == "flat":
        np.savez(path, images=pixels().reshape(6, -1))
    elif what == "text":
        np.savez(path, images=np.full((4, 2, 2, 3), "x"))
    elif what == "equal":
        np.savez(path, images=np.repeat(pixels(1), 4, axis=0))
    elif what == "one channel":
        np.savez(path, images=pixels() * np.array([1, 1, 0], dtype=np.uint8))
    elif what == "nan":
        array = pixels().astype(float)
        array[:, 0, 0, 0] = np.nan
        np.savez(path, images=array)
    elif what == "labels":
        np.savez(path, images=pixels(), labels=np.arange(5))
    else:
        np.savez(path, images=pixels())


@pytest.mark.parametrize(
    ("what", "asked", "told"),
    [
        ("torn jpeg", {"count": 4}, "a.npz: image 3: not an image, or torn"),
        ("no jpeg", {"count": 3}, "a.npz: image 0: not an image, or torn"),
        ("torn offsets", {}, "its offsets do not rise"),
        ("no offsets", {}, "has jpeg, but no offsets"),
        ("torn zip", {}, "cannot be read as arrays"),
        ("flat", {}, r"holds images \(6, 192\): expected one array"),
        ("text", {}, "are of type <U1"),
        ("equal", {}, "are all equal"),
        ("one channel", {}, "or one channel is"),
        ("nan", {}, "image . has a value that is not finite"),
        ("labels", {}, "expected 6 integers"),
        ("whole", {"count": 7}, "holds 6 images, 7 were asked for"),
        ("whole", {"count": 1}, "count is 1"),
        ("whole", {"side": 0}, "side is 0"),
    ],
)
def test_what_is_wrong_is_told_in_one_line(tmp_path, what, asked, told):
    make(tmp_path / "a.npz", what)
    with pytest.raises(ValueError, match=told) as caught:
        images(tmp_path / "a.npz", **({"count": 2, "side": 8} | asked))
    assert "\n" not in str(caught.value)


def test_a_file_is_what_it_holds_and_not_what_it_is_called(tmp_path):
    with (tmp_path / "named.npz").open("wb") as file:
        np.save(file, pixels())
    with (tmp_path / "named.npy").open("wb") as file:
        np.savez(file, images=pixels())
    assert torch.equal(images(tmp_path / "named.npz", 6), images(tmp_path / "named.npy", 6))


def test_what_is_no_source_is_told(tmp_path):
    (tmp_path / "empty.npz").touch()
    with pytest.raises(ValueError, match=r"empty.npz: cannot be read as arrays"):
        images(tmp_path / "empty.npz", 2)
    (tmp_path / "a.txt").write_text("text")
    for name, told in [("none", "no such file"), ("a.txt", "a.txt: expected a folder"), (".", "holds no images")]:
        with pytest.raises(ValueError, match=told):
            images(tmp_path / name, 2)
    make(tmp_path / "a.npz", "whole")
    with pytest.raises(ValueError, match="have no labels"):
        labelled(tmp_path / "a.npz", 2)
