"""What every engine owes of images, as functions of an open engine that serves `tests.models.tiny_vlm` in float32."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from core.benchmark.benchmark import Chat, load_benchmark
from core.benchmark.images import encode_image
from core.benchmark.load import load_tasks
from core.benchmark.prepare import chat_renderer, image_token
from core.benchmarks.shapes import draw
from core.campaign import BenchmarkSpec
from core.request import Generate, Generated, Request, Sampling
from engines.engine import Engine
from tests.engines.conftest import WINDOW
from tests.engines.contract import answer

NAME = "steelyard_shapes"
DOCS = 8
PROMPT = "<|im_start|>user\n<image>What is in the picture?<|im_end|>\n<|im_start|>assistant\n"
LONG = " word" * 600
TOKENS = 12


def picture(shape: str, colour: str) -> bytes:
    figure = {"shape": shape, "colour": colour, "x": 40, "y": 40, "size": 20}
    (image,) = draw({"width": 96, "height": 80, "background": "white", "figures": [figure]})
    return encode_image(image).png


STAR, CIRCLE = picture("star", "red"), picture("circle", "blue")


def ask(id: str, *images: bytes, prompt: str = PROMPT) -> Generate:
    return Generate(id, prompt, Sampling(max_tokens=TOKENS), images)


def generated(engine: Engine, *requests: Request) -> dict[str, Generated]:
    found = answer(engine, requests)
    assert all(isinstance(response, Generated) for response in found.values())
    return found  # type: ignore[return-value]


def answers_as_the_harness_does(engine: Engine, model: Path, harness: Any, *, chat: bool) -> None:
    """Prompts are the harness's to the letter, and greedy answers in float32 are its ``hf-multimodal`` backend's."""
    template = Chat(chat_renderer(model), "tiny") if chat else None
    benchmark = load_benchmark(
        BenchmarkSpec(name=NAME, limit=DOCS), chat=template, seed=0, image_token=lambda: image_token(model)
    )
    task = load_tasks(NAME)[0][NAME]
    task.build_all_requests(
        limit=DOCS,
        apply_chat_template=chat,
        fewshot_as_multiturn=True,
        chat_template=harness.apply_chat_template if chat else None,
        tokenizer_name="tiny" if chat else "",
    )
    harness.chat_applied = chat
    requests = benchmark.requests()
    assert [r.prompt for r in requests if isinstance(r, Generate)] == [instance.args[0] for instance in task.instances]
    theirs = harness.generate_until(task.instances, disable_tqdm=True)
    ours = generated(engine, *requests)
    assert [ours[request.id].text for request in requests] == theirs
    assert len(set(theirs)) > DOCS // 2, "answers that do not differ from picture to picture show nothing"


def tells_images_apart(engine: Engine) -> None:
    """One prompt, two pictures: two answers, and nothing of one in the cache of the other; twice the same: one answer."""
    star = generated(engine, ask("star", STAR))["star"]
    found = generated(engine, ask("circle", CIRCLE), ask("again", STAR))
    assert found["circle"].text != star.text
    assert found["circle"].cached_tokens == star.cached_tokens == 0
    assert found["again"].text == star.text
    assert found["again"].cached_tokens > 0
    assert star.prompt_tokens == found["circle"].prompt_tokens > 40


def keeps_images_in_their_order(engine: Engine) -> None:
    prompt = PROMPT.replace("<image>", "<image> and <image>")
    found = generated(engine, ask("one", STAR, CIRCLE, prompt=prompt), ask("other", CIRCLE, STAR, prompt=prompt))
    assert found["one"].text != found["other"].text


def answers_text_as_before(engine: Engine) -> None:
    found = generated(engine, ask("text", prompt="One, two,"), ask("image", STAR))
    assert found["text"].prompt_tokens == 4
    assert found["text"].error is None


def cuts_text_before_an_image_and_never_an_image(engine: Engine) -> None:
    found = generated(engine, ask("before", STAR, prompt=LONG + PROMPT), ask("after", STAR, prompt=PROMPT + LONG))
    before = found["before"]
    assert (before.error, before.prompt_tokens) == (None, WINDOW - TOKENS)
    assert before.truncated > 100
    assert "an image cannot be cut" in (found["after"].error or "")


def forgets_an_image_that_was_not_asked(engine: Engine) -> None:
    """vLLM's cache may not take an image for known whose prompt never went on its way."""
    new = picture("triangle", "yellow")
    assert generated(engine, ask("refused", new, prompt=PROMPT + LONG))["refused"].error
    assert generated(engine, ask("asked", new))["asked"].error is None


def answers_what_it_cannot_place(engine: Engine) -> None:
    found = generated(
        engine,
        ask("too many", STAR, CIRCLE),
        ask("too few", STAR, prompt=PROMPT.replace("<image>", "<image><image>")),
        ask("no image", b"not a picture"),
        ask("fine", STAR),
    )
    assert "2 images cannot take their places" in (found["too many"].error or "")
    assert "places for 2 images and comes with 1" in (found["too few"].error or "")
    assert "cannot identify image" in (found["no image"].error or "")
    assert found["fine"].error is None
