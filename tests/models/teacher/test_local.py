"""A local model as a teacher: against generating one prompt after the other, bare."""

from __future__ import annotations

import asyncio
import logging
import time

import pytest
import torch

from shoestring.data.tokenizers import byte_tokenizer
from shoestring.models import presets, pretrained
from shoestring.models.teacher.asking import ask
from shoestring.models.teacher.local import Local
from shoestring.models.teacher.words import Parameters, Question, Reply, key

PARAMETERS = Parameters(max_tokens=12)
TEMPLATE = (
    "{% for m in messages %}{% if m.role == 'tool' %}{{ raise_exception('no tools') }}{% endif %}"
    "<{{ m.role }}>{{ m.content }}{% endfor %}<assistant>"
)


@pytest.fixture(scope="module")
def model():
    return presets.build(presets.configuration("neox-tiny", 257, 128), 0).eval()


def greedy(model, text: str, count: int) -> str:
    """The slow way: one prompt, one token after the other, no cache."""
    tokenizer = byte_tokenizer()
    ids = tokenizer.encode(text)
    for _ in range(count):
        with torch.inference_mode():
            ids.append(int(model(torch.tensor([ids])).logits[0, -1].argmax()))
    return tokenizer.decode(ids[-count:]).split(tokenizer.eos_token)[0]


def complete(teacher: Local, *questions: Question, parameters: Parameters = PARAMETERS) -> list[Reply]:
    async def all_of_them() -> list[Reply]:
        keys = [key(question, teacher.model, parameters) for question in questions]
        asked = [teacher.complete(one, parameters, name) for one, name in zip(questions, keys, strict=True)]
        return await asyncio.gather(*asked)

    return asyncio.run(all_of_them())


def test_questions_answered_together_are_answered_as_alone(model, store):
    questions = [Question(f"q{n}", (("user", "say " + "more " * n),)) for n in range(11)]
    asked = ask(questions, Local(model, byte_tokenizer(), "tiny", batch_size=4), PARAMETERS, store)
    for question, reply in zip(questions, asked.replies, strict=True):
        assert reply is not None
        text = question.messages[0][1]
        assert reply.text == greedy(model, text, 12)
        assert (reply.prompt_tokens, reply.finish_reason, reply.counted) == (len(text), "length", True)
    assert asked.paid.completion_tokens == 11 * 12


def test_the_same_sample_is_the_same_text_and_another_is_another(model):
    parameters = Parameters(max_tokens=12, temperature=1.0, top_p=0.95)
    questions = [Question("q", (("user", "say it" * (n % 3 + 1)),), sample=n // 3) for n in range(12)]
    together = complete(Local(model, byte_tokenizer(), "tiny", batch_size=12), *questions, parameters=parameters)
    alone = [complete(Local(model, byte_tokenizer(), "tiny"), one, parameters=parameters)[0] for one in questions]
    assert together == alone
    assert len({reply.text for reply in together}) == 12


def test_an_answer_ends_at_a_stop(model):
    whole = complete(Local(model, byte_tokenizer(), "tiny"), Question("q", (("user", "abc"),)))[0]
    stop = whole.text[3:5]
    cut = complete(
        Local(model, byte_tokenizer(), "tiny"),
        Question("q", (("user", "abc"),)),
        Question("q", (("user", "abcdefgh"),)),
        parameters=Parameters(max_tokens=12, stop=(stop,)),
    )[0]
    assert (cut.text, cut.finish_reason) == (whole.text[: whole.text.index(stop)], "stop")
    assert cut.completion_tokens < whole.completion_tokens


def test_a_batch_that_nobody_waits_for_ends(model, monkeypatch):
    teacher, tokens, forward = Local(model, byte_tokenizer(), "tiny"), [], model.forward
    parameters = Parameters(max_tokens=120)

    async def dropped() -> None:
        asking = asyncio.create_task(teacher.complete(Question("q", (("user", "abc"),)), parameters, "0" * 64))
        loop = asyncio.get_running_loop()

        def watched(*args, **options):
            tokens.append(1)
            if len(tokens) == 5:
                loop.call_soon_threadsafe(asking.cancel)
            time.sleep(0.01)
            return forward(*args, **options)

        monkeypatch.setattr(model, "forward", watched)
        with pytest.raises(asyncio.CancelledError):
            await asking

    asyncio.run(dropped())  # returns once the thread that answered has ended
    assert 5 <= len(tokens) < 60


def test_other_parameters_are_other_batches(model):
    async def both() -> list[Reply]:
        teacher = Local(model, byte_tokenizer(), "tiny")
        question = Question("q", (("user", "abc"),))
        return await asyncio.gather(
            *(teacher.complete(question, Parameters(max_tokens=count), "0" * 64) for count in (3, 5, 3))
        )

    assert [reply.completion_tokens for reply in asyncio.run(both())] == [3, 5, 3]


def test_how_messages_become_a_prompt(model):
    tokenizer = byte_tokenizer()
    teacher = Local(model, tokenizer, "tiny")
    one, two = Question("q", (("user", "{a}\n"),)), Question("q", (("system", "be brief"), ("user", "a?")))
    assert tokenizer.decode(teacher._prompt(one)) == "{a}\n"
    assert tokenizer.decode(teacher._prompt(two)) == "system: be brief\nuser: a?\nassistant:"
    tokenizer.chat_template = TEMPLATE
    assert tokenizer.decode(teacher._prompt(two)) == "<system>be brief<user>a?<assistant>"


def test_what_a_question_cannot_be_fails_alone(model, store):
    tokenizer = byte_tokenizer()
    tokenizer.chat_template = TEMPLATE
    questions = [
        Question("long", (("user", "x" * 110),)),
        Question("tool", (("tool", "a"),)),
        Question("fine", (("user", "a"),)),
    ]
    asked = ask(questions, Local(model, tokenizer, "tiny"), PARAMETERS, store)
    assert asked.failed == {
        "long": "a prompt of 127 tokens and an answer of up to 12 do not fit the 128 that the model reads: shorten the "
        "prompt, or lower max_tokens",
        "tool": "the model's chat template refuses it: no tools",
    }
    assert [reply is not None for reply in asked.replies] == [False, False, True]


def test_an_empty_prompt_fails_alone(model, store):
    questions = [Question("none", (("user", ""),)), Question("fine", (("user", "a"),))]
    asked = ask(questions, Local(model, byte_tokenizer(), "tiny"), PARAMETERS, store)
    assert asked.failed == {"none": "its prompt holds no token: a model writes on from one or more"}


def test_a_saved_model_is_the_same_teacher_and_a_changed_one_is_another(model, tmp_path):
    pretrained.save(model, byte_tokenizer(), tmp_path / "model")
    loaded = Local.load(tmp_path / "model", device="cpu")
    assert loaded.model == Local(model, byte_tokenizer(), str(tmp_path / "model")).model
    question = Question("q", (("user", "abc"),))
    assert complete(loaded, question)[0].text == greedy(model, "abc", 12)
    changed = presets.build(presets.configuration("neox-tiny", 257, 128), 1)
    assert Local(changed, byte_tokenizer(), str(tmp_path / "model")).model != loaded.model


@pytest.mark.parametrize(
    "length", [{"max_length": 20}, {"max_new_tokens": 40}, {"max_new_tokens": 3, "max_length": 90}, {"min_length": 90}]
)
def test_a_models_own_settings_for_sampling_and_length_do_not_count(caplog, length):
    other = presets.build(presets.configuration("neox-tiny", 257, 128), 0)
    own = {"do_sample": True, "temperature": 0.6, "top_k": 3, "eos_token_id": [256, 255], **length}
    other.generation_config.update(**own)
    question = Question("q", (("user", "abc"),))
    with caplog.at_level(logging.WARNING):
        first, second = (complete(Local(other, byte_tokenizer(), "tiny"), question)[0] for _ in range(2))
    assert first == second
    assert first.text == greedy(other, "abc", 12)
    assert caplog.text == ""
    assert {name: getattr(other.generation_config, name) for name in own} == own, "the model is as it was"


def test_a_failure_of_the_model_is_not_hidden(model, store, monkeypatch):
    def fails(**_):
        raise torch.OutOfMemoryError

    teacher = Local(model, byte_tokenizer(), "tiny", batch_size=2)
    monkeypatch.setattr(model, "generate", fails)
    questions = [Question(f"q{n}", (("user", "a" * n),)) for n in range(1, 5)]
    with pytest.raises(ValueError, match=r"2 questions at once do not fit the memory of cpu: lower batch_size"):
        ask(questions, teacher, PARAMETERS, store)


def test_a_tokenizer_that_ends_nothing_and_pads_with_nothing_is_enough():
    tokenizer = byte_tokenizer()
    tokenizer.eos_token = tokenizer.bos_token = tokenizer.pad_token = None
    network = presets.build(presets.configuration("neox-tiny", 257, 64), 0)
    replies = complete(
        Local(network, tokenizer, "m"), Question("a", (("user", "a"),)), Question("b", (("user", "bcd"),))
    )
    assert [(one.finish_reason, one.completion_tokens) for one in replies] == [("length", PARAMETERS.max_tokens)] * 2


def test_a_batch_of_none_is_refused(model):
    with pytest.raises(ValueError, match=r"batch_size is 0: expected one or more"):
        Local(model, byte_tokenizer(), "tiny", batch_size=0)
