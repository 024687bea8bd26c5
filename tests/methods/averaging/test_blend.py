"""The arithmetic of a merge: cut into pieces, every element once, the same bits however it is cut."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file

from shoestring.methods.averaging.average import average
from shoestring.methods.averaging.blend import ACCUMULATED, Blender, Window, block_elements, spans
from shoestring.methods.averaging.checkpoints import open_checkpoint
from shoestring.methods.averaging.layout import OutputFile, Slot, lay_out


def test_by_hand_a_tensor_of_five_in_blocks_of_two():
    slots = (Slot("a", torch.float32, (5,), 16), Slot("b", torch.int64, (1,), 36))
    file = OutputFile("x", bytes(16), slots, 44)
    cut = spans([file], elements=2, span_bytes=16)
    assert [[(piece.slot.name, piece.start, piece.stop) for piece in span.pieces] for span in cut] == [
        [("a", 0, 2), ("a", 2, 4)],
        [("a", 4, 5), ("b", 0, 1)],
    ]
    assert [(span.end, len(span)) for span in cut] == [(32, 16), (44, 12)]


@given(
    lengths=st.lists(st.integers(0, 50), max_size=6),
    elements=st.integers(1, 20),
    span_bytes=st.integers(1, 100),
)
def test_spans_cover_every_element_once_and_in_order(lengths, elements, span_bytes):
    place, slots = 8, []
    for number, length in enumerate(lengths):
        slots.append(Slot(str(number), torch.int16, (length,), place))
        place += 2 * length
    cut = spans([OutputFile("x", bytes(8), tuple(slots), place)], elements, span_bytes)
    covered = [(piece.slot.name, at) for span in cut for piece in span.pieces for at in range(piece.start, piece.stop)]
    assert covered == [(slot.name, at) for slot in slots for at in range(slot.numel)]
    assert [span.end for span in cut] == sorted(span.end for span in cut)
    assert cut[-1].end == place


def test_the_sums_of_many_windows_stay_within_bounds():
    windows = [Window(None, tuple(range(last - 900, last + 1)), (1 / 901,) * 901) for last in range(900, 2000)]
    elements = block_elements(windows, 1 << 20, torch.float64)
    assert 0 < elements * 8 * 901 <= ACCUMULATED
    assert block_elements(windows[:1], 1 << 20, torch.float32) == (1 << 20) // 4


def blended(folder, states, windows, dtype=None, elements=7):
    sources = []
    for number, state in enumerate(states):
        (folder / f"in-{number}").mkdir()
        save_file(state, folder / f"in-{number}" / "model.safetensors")
        sources.append(open_checkpoint(folder / f"in-{number}"))
    files = lay_out(sources[-1], dtype)
    held = [{one.name: one for one in source.shards[0].tensors} for source in sources]
    for window in windows:
        window.folder.mkdir()
        (window.folder / files[0].name).write_bytes(files[0].header)
    blender = Blender(held, windows, elements, torch.float64 if dtype == torch.float64 else torch.float32)
    for span in spans(files, elements, 64):
        blender.expect(span)
        blender.blend(span)
    return [load_file(window.folder / files[0].name) for window in windows]


FLOATS = [torch.float32, torch.bfloat16, torch.float16, torch.float64, torch.float8_e4m3fn, torch.float8_e5m2]


@settings(max_examples=25, deadline=None)
@given(kind=st.sampled_from(FLOATS), target=st.sampled_from([None, *FLOATS[:4]]), seed=st.integers(0, 99))
def test_every_kind_of_float_gives_the_bits_of_the_average_in_memory(tmp_path_factory, kind, target, seed):
    generator = torch.Generator().manual_seed(seed)
    states = [{"a": torch.randn(5, 9, generator=generator).to(kind)} for _ in range(3)]
    shares = (0.5, 0.2, 0.3)
    folder = tmp_path_factory.mktemp("blend")
    (got,) = blended(folder, states, [Window(folder / "out", (0, 1, 2), shares)], target)
    accumulate = torch.float64 if target == torch.float64 else torch.float32
    want = average(states, [5, 2, 3], accumulate=accumulate, dtype=target)
    assert torch.equal(got["a"].view(torch.uint8), want["a"].view(torch.uint8))


def test_windows_that_overlap_are_each_summed_from_zero(tmp_path):
    states = [{"a": torch.randn(40, generator=torch.Generator().manual_seed(at)) * 10.0**at} for at in range(6)]
    windows = [Window(tmp_path / str(last), (last - 4, last - 2, last), (1 / 3,) * 3) for last in range(4, 6)]
    for window, got in zip(windows, blended(tmp_path, states, windows), strict=True):
        assert torch.equal(got["a"], average([states[at] for at in window.members])["a"])


def test_integers_and_masks_come_from_the_newest(tmp_path):
    mask = torch.full((3, 3), -torch.inf).triu(1)
    states = [{"n": torch.tensor([at, 7]), "mask": mask, "on": torch.tensor([at == 1])} for at in range(2)]
    (got,) = blended(tmp_path, states, [Window(tmp_path / "out", (0, 1), (0.5, 0.5))])
    assert got["n"].tolist() == [1, 7]
    assert got["on"].tolist() == [True]
    assert torch.equal(got["mask"], mask)


@pytest.mark.parametrize("bad", [torch.nan, torch.inf])
def test_what_is_not_finite_is_named_with_its_file(tmp_path, bad):
    states = [{"a": torch.zeros(30), "b": torch.zeros(2)} for _ in range(3)]
    states[1]["a"][20] = bad
    with pytest.raises(ValueError, match=r"in-1/model\.safetensors: tensor 'a' holds NaN or an infinity") as error:
        blended(tmp_path, states, [Window(tmp_path / "out", (0, 1, 2), (1 / 3,) * 3)])
    assert "\n" not in str(error.value)


def test_a_mean_beyond_what_the_dtype_holds_is_refused_and_one_that_rounds_back_is_not(tmp_path):
    window = Window(tmp_path / "out", (0,), (1.0,))
    (got,) = blended(tmp_path, [{"a": torch.tensor([65510.0])}], [window], torch.float16)
    assert got["a"].tolist() == [65504.0]
    (tmp_path / "again").mkdir()
    again = Window(tmp_path / "again" / "out", (0,), (1.0,))
    with pytest.raises(ValueError, match="'a' is beyond what float16 can hold: choose a wider dtype"):
        blended(tmp_path / "again", [{"a": torch.tensor([70000.0])}], [again], torch.float16)
