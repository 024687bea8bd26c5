"""Images to score networks on: from a folder of pictures or arrays on disk, some of them drawn, all of one size."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import torch
from numpy.lib.format import MAGIC_PREFIX
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor
from torch.nn.functional import interpolate

_ENDINGS = (".png", ".jpg", ".jpeg", ".bmp", ".gif", ".ppm", ".webp", ".tif", ".tiff")
_FORMS = "a folder of pictures, an .npz with jpeg and offsets, or an .npz or .npy of (N, H, W, 3) or (N, 3, H, W)"
_PICKLES = (".pkl", ".pickle", ".pt", ".pth")


@dataclass(frozen=True)
class _Source:
    """So many images; `read` gives one as (3, H, W), in floats; labels (N,) where there are any."""

    count: int
    read: Callable[[int], Tensor]
    labels: NDArray[Any] | None


def images(source: str | Path, count: int, side: int = 32, seed: int = 0) -> Tensor:
    """Some images of a source, (count, 3, side, side), each channel with mean 0 and sd 1 over those drawn.

    source  a folder of pictures, with those in its folders; an .npz with `jpeg` (all files joined), `offsets` (N + 1)
            and perhaps `labels`; an .npz or .npy with (N, H, W, 3) or (N, 3, H, W) numbers
    side    pixels; the middle square of an image is scaled to it
    Drawn by seed, without replacement. Raises ValueError where the source is none of these, holds fewer than `count`,
    or one cannot be read; the message names which.
    """
    return _drawn(_source(Path(source)), Path(source), count, side, seed)[0]


def count(source: str | Path) -> int:
    """How many images a source holds. Raises ValueError where it is none."""
    return _source(Path(source)).count


def labelled(source: str | Path, count: int, side: int = 32, seed: int = 0) -> tuple[Tensor, Tensor]:
    """The same images as `images` draws, and their labels (count,) as integers.

    The labels are an .npz file's `labels`, or, of a folder, which of its folders an image is in, by name. Raises
    ValueError where there are none.
    """
    found = _source(Path(source))
    if found.labels is None:
        raise ValueError(f"{source}: its images have no labels: expected an array `labels`, or a folder a class")
    drawn, rows = _drawn(found, Path(source), count, side, seed)
    return drawn, torch.from_numpy(found.labels[rows].astype(np.int64))


def _drawn(source: _Source, path: Path, count: int, side: int, seed: int) -> tuple[Tensor, list[int]]:
    if count < 2:
        raise ValueError(f"count is {count}: images are compared with each other, so ask for two or more")
    if side < 1:
        raise ValueError(f"side is {side}: expected one pixel or more")
    if count > source.count:
        raise ValueError(f"{path}: holds {source.count} images, {count} were asked for: ask for fewer, or give more")
    rows = Random(seed).sample(range(source.count), count)
    drawn = torch.stack([_square(source.read(row), side) for row in rows])
    if not bool(torch.isfinite(drawn).all()):
        bad = int((~torch.isfinite(drawn)).flatten(1).any(1).nonzero()[0])
        raise ValueError(f"{path}: image {rows[bad]} has a value that is not finite")
    deviation, mean = torch.std_mean(drawn.double(), dim=(0, 2, 3), keepdim=True)
    if bool((drawn == drawn[:1]).all()) or bool((deviation == 0).any()):
        raise ValueError(f"{path}: the {count} images drawn are all equal, or one channel is: nothing tells them apart")
    return ((drawn - mean) / deviation).float(), rows


def _square(image: Tensor, side: int) -> Tensor:
    """The middle square of (3, H, W), scaled."""
    height, width = image.shape[1:]
    least = min(height, width)
    above, left = (height - least) // 2, (width - least) // 2
    image = image[:, above : above + least, left : left + least]
    if least == side:
        return image
    return interpolate(image[None], (side, side), mode="bilinear", antialias=True)[0]


def _source(path: Path) -> _Source:
    if not path.exists():
        raise ValueError(f"{path}: no such file or folder: expected {_FORMS}")
    if path.is_dir():
        return _folder(path)
    if path.suffix in _PICKLES or path.name.startswith("data_batch"):
        raise ValueError(f"{path}: {_pickled()}")
    if path.suffix not in (".npz", ".npy"):
        raise ValueError(f"{path}: expected {_FORMS}")
    arrays = _arrays(path)
    if "jpeg" in arrays:
        return _jpegs(path, arrays)
    return _plain(path, arrays)


def _pickled() -> str:
    return f"a pickle runs what is in it when it is read, so none is read here: expected {_FORMS}"


def _folder(path: Path) -> _Source:
    files = sorted(file for file in path.rglob("*") if file.suffix.lower() in _ENDINGS and file.is_file())
    if not files:
        if next(path.rglob("data_batch*"), None) is not None:
            raise ValueError(f"{path}: holds CIFAR as pickles; {_pickled()}")
        raise ValueError(f"{path}: holds no images: expected files ending in {', '.join(_ENDINGS)}")
    classes = [file.relative_to(path).parts[0] if file.parent != path else "" for file in files]
    known = {name: place for place, name in enumerate(sorted(set(classes)))}
    labels = np.array([known[name] for name in classes]) if "" not in known and len(known) > 1 else None
    return _Source(len(files), lambda row: _picture(files[row].read_bytes(), f"{files[row]}"), labels)


def _picture(data: bytes, where: str) -> Tensor:
    try:
        with Image.open(io.BytesIO(data)) as opened:
            pixels = np.array(opened.convert("RGB"))
    except (OSError, SyntaxError, ValueError) as error:
        said = " ".join(str(error).split()).split(" <_io")[0]
        raise ValueError(f"{where}: not an image, or torn ({said})") from None
    return torch.from_numpy(pixels).permute(2, 0, 1).float()


def _arrays(path: Path) -> dict[str, NDArray[Any]]:
    """The arrays of a file, whatever it is called; of an .npy file, its one."""
    try:
        with path.open("rb") as file:
            if file.read(len(MAGIC_PREFIX)) == MAGIC_PREFIX:
                return {"images": np.load(path, mmap_mode="r")}
            file.seek(0)
            with np.load(file) as opened:
                return {name: opened[name] for name in opened.files}
    except (OSError, EOFError, zipfile.BadZipFile, ValueError) as error:
        said = "it holds pickled objects, which are not read" if _pickled_objects(error) else str(error)
        raise ValueError(f"{path}: cannot be read as arrays ({' '.join(said.split())}): expected {_FORMS}") from None


def _pickled_objects(error: Exception) -> bool:
    return any(said in str(error) for said in ("allow_pickle", "Python objects"))


def _jpegs(path: Path, arrays: dict[str, NDArray[Any]]) -> _Source:
    joined, offsets = arrays["jpeg"], arrays.get("offsets")
    if offsets is None or offsets.ndim != 1 or len(offsets) < 2:
        raise ValueError(f"{path}: has jpeg, but no offsets of its images: expected (N + 1,) places in jpeg")
    if offsets[0] != 0 or offsets[-1] != len(joined) or bool((np.diff(offsets) < 1).any()):
        raise ValueError(f"{path}: its offsets do not rise from 0 to the {len(joined)} bytes of jpeg: the file is torn")
    count = len(offsets) - 1

    def read(row: int) -> Tensor:
        return _picture(joined[offsets[row] : offsets[row + 1]].tobytes(), f"{path}: image {row}")

    return _Source(count, read, _labels(path, arrays, count))


def _plain(path: Path, arrays: dict[str, NDArray[Any]]) -> _Source:
    stacks = {
        name: array for name, array in arrays.items() if array.ndim == 4 and 3 in (array.shape[1], array.shape[3])
    }
    if len(stacks) != 1:
        shapes = ", ".join(f"{name} {array.shape}" for name, array in arrays.items()) or "nothing"
        raise ValueError(f"{path}: holds {shapes}: expected one array of (N, H, W, 3) or (N, 3, H, W)")
    stack = next(iter(stacks.values()))
    if not (np.issubdtype(stack.dtype, np.integer) or np.issubdtype(stack.dtype, np.floating)):
        raise ValueError(f"{path}: its images are of type {stack.dtype}: expected integers or floats")
    last = stack.shape[3] == 3

    def read(row: int) -> Tensor:
        image = torch.from_numpy(np.array(stack[row], dtype=np.float32))
        return image.permute(2, 0, 1) if last else image

    return _Source(len(stack), read, _labels(path, arrays, len(stack)))


def _labels(path: Path, arrays: dict[str, NDArray[Any]], count: int) -> NDArray[Any] | None:
    labels = arrays.get("labels")
    if labels is not None and (labels.shape != (count,) or not np.issubdtype(labels.dtype, np.integer)):
        raise ValueError(f"{path}: its labels are {labels.dtype} of {labels.shape}: expected {count} integers")
    return labels
