"""A causal language model on this machine as a teacher: questions that wait are answered together."""

from __future__ import annotations

import asyncio
import copy
import hashlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from shoestring.models import pretrained
from shoestring.models.teacher.sampling import Draws, Stops, Unwanted, ended
from shoestring.models.teacher.words import Parameters, Question, Refused, Reply

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

_JOIN = 0.01  # seconds without a new question after which a batch is not waited for any longer


class _Waiting(NamedTuple):
    prompt: list[int]
    parameters: Parameters
    seed: int
    future: asyncio.Future[Reply]


class Local:
    """A model and its tokenizer, asked like a server.

    name        what `model` calls it, with a fingerprint of its weights: answers of other weights are other answers
    batch_size  questions answered together
    A question's sampling has a seed of its own, made from its key: the same sample is the same text, whatever else is
    in its batch, up to the rounding of sums. Where the tokenizer has a chat template the messages go through it; else
    a single user's text stands as it is, and several messages are written "role: text" in lines.
    """

    def __init__(
        self, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, name: str, *, batch_size: int = 8
    ) -> None:
        if batch_size < 1:
            raise ValueError(f"batch_size is {batch_size}: expected one or more")
        self.model = f"{name} ({_fingerprint(model)})"
        self._network, self._tokenizer, self._batch_size = model.eval(), tokenizer, batch_size
        self._waiting: list[_Waiting] = []
        self._work: asyncio.Task[None] | None = None

    @classmethod
    def load(
        cls,
        name_or_folder: str | Path,
        *,
        batch_size: int = 8,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> Local:
        """By folder or name, offline first, on the accelerator where there is one."""
        import torch

        model, tokenizer = pretrained.load(name_or_folder, dtype)
        here = torch.accelerator.current_accelerator() if torch.accelerator.is_available() else torch.device("cpu")
        placed: Any = model
        return cls(placed.to(device or here), tokenizer, str(name_or_folder), batch_size=batch_size)

    async def complete(self, question: Question, parameters: Parameters, key: str) -> Reply:
        prompt = self._prompt(question)
        if not prompt:
            raise Refused("its prompt holds no token: a model writes on from one or more")
        longest = getattr(self._network.config, "max_position_embeddings", None)
        if longest is not None and len(prompt) + parameters.max_tokens > longest:
            raise Refused(
                f"a prompt of {len(prompt)} tokens and an answer of up to {parameters.max_tokens} do not fit the "
                f"{longest} that the model reads: shorten the prompt, or lower max_tokens"
            )
        future: asyncio.Future[Reply] = asyncio.get_running_loop().create_future()
        self._waiting.append(_Waiting(prompt, parameters, int(key[:15], 16), future))
        if self._work is None or self._work.done():
            self._work = asyncio.create_task(self._answer_all())
        return await future

    async def close(self) -> None:
        """Nothing is held for an event loop once its questions are answered."""
        self._waiting = [one for one in self._waiting if not one.future.done()]

    async def _answer_all(self) -> None:
        while self._waiting:
            before = 0
            while before < len(self._waiting) < self._batch_size:
                before = len(self._waiting)
                await asyncio.sleep(_JOIN)
            batch = self._batch()
            if batch:
                work = asyncio.ensure_future(asyncio.to_thread(self._generate, batch))
                await asyncio.wait({work})
                _give(batch, work)

    def _batch(self) -> list[_Waiting]:
        """Those that wait and sample alike, the longest waiting first."""
        waiting = [one for one in self._waiting if not one.future.done()]
        batch = [one for one in waiting if one.parameters == waiting[0].parameters][: self._batch_size]
        self._waiting = [one for one in waiting if one not in batch]
        return batch

    def _prompt(self, question: Question) -> list[int]:
        from jinja2 import TemplateError

        messages = [{"role": role, "content": text} for role, text in question.messages]
        tokenizer: Any = self._tokenizer
        if tokenizer.chat_template is not None:
            try:
                text = tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
            except TemplateError as error:
                raise Refused(f"the model's chat template refuses it: {' '.join(str(error).split())}") from None
            return list(tokenizer.encode(text, add_special_tokens=False))
        if len(messages) == 1 and messages[0]["role"] == "user":
            text = messages[0]["content"]
        else:
            text = "\n".join([*(f"{role}: {text}" for role, text in question.messages), "assistant:"])
        return list(tokenizer.encode(text))

    def _generate(self, batch: Sequence[_Waiting]) -> list[Reply]:
        """The replies to a batch; to be called in a thread."""
        import torch
        from transformers import GenerationConfig

        parameters, network = batch[0].parameters, self._network
        ends = _ends(self._tokenizer, network)
        pad = self._tokenizer.pad_token_id
        if pad is None:
            pad = ends[0] if ends else 0  # masked, whatever it is
        ids, mask = _padded([one.prompt for one in batch], pad, network.device)
        width = ids.shape[1]
        draws = [Draws(parameters, [one.seed for one in batch])] if parameters.temperature > 0 else []
        stops: list[Stops | Unwanted] = [Unwanted([one.future for one in batch])]
        if parameters.stop:
            stops.append(Stops(parameters.stop, self._tokenizer, width))
        settings = GenerationConfig(
            max_new_tokens=parameters.max_tokens,
            do_sample=False,
            temperature=1.0,
            top_p=1.0,
            top_k=50,
            num_beams=1,
            pad_token_id=pad,
            eos_token_id=ends or None,
        )
        generator: Any = network
        try:
            with torch.inference_mode(), _as_long_as_asked(network):
                written = generator.generate(
                    input_ids=ids,
                    attention_mask=mask,
                    generation_config=settings,
                    logits_processor=draws,
                    stopping_criteria=stops,
                )
        except torch.OutOfMemoryError:
            raise ValueError(
                f"{len(batch)} questions at once do not fit the memory of {network.device}: lower batch_size"
            ) from None
        ending = {*ends, pad} if ends else set()
        return [
            Reply(*ended(row[width:].tolist(), ending, parameters, self._tokenizer, len(one.prompt)), self.model)
            for one, row in zip(batch, written, strict=True)
        ]


@contextmanager
def _as_long_as_asked(network: Any) -> Iterator[None]:
    """Without what a model's own settings say of an answer's length and number. The others stay, a penalty for
    repetition for one: `generate` takes from there what it is not given."""
    own = network.generation_config
    network.generation_config = copy.deepcopy(own)
    for name in ("max_length", "max_new_tokens", "min_length", "min_new_tokens", "max_time", "num_return_sequences"):
        setattr(network.generation_config, name, None)
    try:
        yield
    finally:
        network.generation_config = own


def _give(batch: Sequence[_Waiting], work: asyncio.Future[list[Reply]]) -> None:
    error = work.exception()
    for place, one in enumerate(batch):
        if one.future.done():  # cancelled
            continue
        if error is not None:
            one.future.set_exception(error)
        else:
            one.future.set_result(work.result()[place])


def _padded(prompts: Sequence[Sequence[int]], pad: int, device: Any) -> tuple[Tensor, Tensor]:
    """Ids and mask, both (questions, longest prompt), filled up on the left: a model writes on from the right."""
    import torch

    longest = max(map(len, prompts))
    ids = torch.tensor([[pad] * (longest - len(prompt)) + list(prompt) for prompt in prompts], device=device)
    mask = torch.tensor([[0] * (longest - len(prompt)) + [1] * len(prompt) for prompt in prompts], device=device)
    return ids, mask


def _ends(tokenizer: Any, network: Any) -> list[int]:
    """The ids that end an answer: those that the model says, and the tokenizer's."""
    said = network.generation_config.eos_token_id
    ends = said if isinstance(said, list) else [said]
    return list(dict.fromkeys(end for end in [*ends, tokenizer.eos_token_id] if end is not None))


def _fingerprint(model: nn.Module) -> str:
    """Eight letters that other weights would change: a thousand numbers of each tensor go in."""
    import torch

    digest = hashlib.sha256()
    for name, tensor in model.state_dict().items():
        some = tensor.detach().flatten()[:: max(1, tensor.numel() // 1000)]
        digest.update(f"{name} {tuple(tensor.shape)} {tensor.dtype}".encode())
        digest.update(some.to("cpu", torch.float32).numpy().tobytes())
    return digest.hexdigest()[:8]
