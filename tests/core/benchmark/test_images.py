"""Images of benchmarks, from what lm-eval's tasks give to requests, fingerprints and samples."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from PIL import Image, ImageOps

from core.benchmark.benchmark import Benchmark, Chat, load_benchmark
from core.benchmark.images import benchmark_asks_images, encode_image, in_parts, in_words
from core.campaign import BenchmarkSpec, CampaignSpec
from core.errors import UserError
from core.planning.plan import make_plan
from core.request import Generate, Generated
from core.store.schema import samples_of
from tests.checkpoints import write_checkpoint
from tests.core.store_parts import make_cell, samples_table

GRADIENT = ImageOps.colorize(Image.linear_gradient("L"), "navy", "gold").resize((40, 30))


def decoded(png: bytes) -> Image.Image:
    return Image.open(io.BytesIO(png))


@pytest.mark.parametrize("mode", ["1", "L", "LA", "RGB", "RGBA"])
def test_an_image_comes_back_as_it_was(mode: str) -> None:
    image = GRADIENT.convert(mode)
    back = decoded(encode_image(image).png)
    assert (back.mode, back.size, back.tobytes()) == (mode, image.size, image.tobytes())


@pytest.mark.parametrize(("mode", "becomes"), [("P", "RGB"), ("CMYK", "RGB"), ("YCbCr", "RGB"), ("PA", "RGBA")])
def test_modes_that_png_has_no_word_for_become_rgb(mode: str, becomes: str) -> None:
    image = GRADIENT.convert("RGBA" if mode == "PA" else "RGB").convert(mode)
    assert decoded(encode_image(image).png).tobytes() == image.convert(becomes).tobytes()


def test_what_a_palette_keeps_transparent_stays_so() -> None:
    image = GRADIENT.convert("P")
    image.info["transparency"] = 0
    assert decoded(encode_image(image).png).mode == "RGBA"


def test_the_digest_is_of_pixels_and_not_of_their_file() -> None:
    first, second = io.BytesIO(), io.BytesIO()
    GRADIENT.save(first, "png", compress_level=0)
    GRADIENT.save(second, "bmp")
    digests = {encode_image(image).sha256 for image in (GRADIENT, first.getvalue(), {"bytes": second.getvalue()})}
    assert len(digests) == 1
    other = GRADIENT.copy()
    other.putpixel((0, 0), (1, 2, 3))
    assert encode_image(other).sha256 not in digests
    assert encode_image(Image.new("L", (4, 2))).sha256 != encode_image(Image.new("L", (2, 4))).sha256


def test_orientation_is_left_to_nobody() -> None:
    """The harness's processors see pixels as they are stored; so does ours."""
    image = GRADIENT.copy()
    image.getexif()[0x0112] = 6
    stored = io.BytesIO()
    image.save(stored, "png", exif=image.getexif())
    assert not decoded(encode_image(stored.getvalue()).png).getexif()


def test_messages_are_split_at_their_images() -> None:
    seen: list[Any] = []

    def render(messages: list[dict[str, Any]], add_generation_prompt: bool = True) -> str:
        seen.append((messages, add_generation_prompt))
        return ""

    turns = [{"role": "system", "content": "Look."}, {"role": "user", "content": "<image>one <image>\ntwo<image>"}]
    in_parts(render)(turns, add_generation_prompt=False)
    image = {"type": "image"}
    one, two = {"type": "text", "text": "one "}, {"type": "text", "text": "\ntwo"}
    system = {"role": "system", "content": [{"type": "text", "text": "Look."}]}
    assert seen == [([system, {"role": "user", "content": [image, one, image, two, image]}], False)]
    assert turns[0]["content"] == "Look."


def test_what_json_cannot_say_is_said_in_words() -> None:
    doc = {"picture": GRADIENT, "file": b"12345", "text": "as it is"}
    assert json.loads(json.dumps(doc, default=in_words)) == {
        "picture": "<image RGB 40x30>",
        "file": "<5 bytes>",
        "text": "as it is",
    }


def own_benchmark(folder: Path, **fields: str) -> Path:
    """A benchmark of two docs with one image each, or what ``fields`` make of it."""
    (folder / "hooks.py").write_text(
        """
from PIL import Image
def rows(**_):
    from datasets import Dataset, DatasetDict
    return DatasetDict({"test": Dataset.from_list([{"shade": 10, "answer": "dark"}, {"shade": 200, "answer": "light"}])})
def draw(doc):
    return Image.new("L", (8, 8), doc["shade"])
def tell(doc):
    return "no image"
"""
    )
    lines = {
        "task": "shades",
        "custom_dataset": "!function hooks.rows",
        "test_split": "test",
        "output_type": "generate_until",
        "doc_to_image": "!function hooks.draw",
        "doc_to_text": '"<image>Dark or light?"',
        "doc_to_target": '"{{answer}}"',
        **fields,
    }
    file = folder / "shades.yaml"
    file.write_text("".join(f"{name}: {value}\n" for name, value in lines.items() if value))
    return file


def load(file: Path, chat: Chat | None = None, **more: Any) -> Benchmark:
    token: Callable[[], str] = more.pop("token", lambda: "<img>")
    return load_benchmark(BenchmarkSpec(name=str(file), **more), chat=chat, seed=0, image_token=token)


def test_requests_carry_images_and_the_models_own_token(tmp_path: Path) -> None:
    requests = load(own_benchmark(tmp_path)).requests()
    assert [request.prompt for request in requests if isinstance(request, Generate)] == ["<img>Dark or light?"] * 2
    shades = [decoded(request.images[0]).getpixel((0, 0)) for request in requests if isinstance(request, Generate)]
    assert shades == [10, 200]


def test_a_chat_template_gets_the_image_as_a_part(tmp_path: Path) -> None:
    def render(messages: list[dict[str, Any]], add_generation_prompt: bool = True) -> str:
        return json.dumps(messages[-1]["content"])

    (request, _) = load(own_benchmark(tmp_path), Chat(render, "none")).requests()
    assert isinstance(request, Generate)
    assert json.loads(request.prompt) == [{"type": "image"}, {"type": "text", "text": "Dark or light?"}]
    assert len(request.images) == 1


def test_another_pixel_is_another_fingerprint(tmp_path: Path) -> None:
    file = own_benchmark(tmp_path)
    before = load(file).settings["tasks"]["shades"]["prompts"]
    assert load(file).settings["tasks"]["shades"]["prompts"] == before
    hooks = tmp_path / "hooks.py"
    hooks.write_text(hooks.read_text().replace('doc["shade"])', 'doc["shade"] + 1)'))
    assert load(file).settings["tasks"]["shades"]["prompts"] != before


def test_samples_keep_the_digests_and_not_the_images(tmp_path: Path) -> None:
    benchmark = load(own_benchmark(tmp_path))
    answers = {request.id: Generated(request.id, "dark", "stop", 1, 1) for request in benchmark.requests()}
    samples = benchmark.score(answers).samples
    assert [sample.images for sample in samples] == [
        (encode_image(Image.new("L", (8, 8), shade)).sha256,) for shade in (10, 200)
    ]
    assert tuple(samples_of(samples_table(make_cell(), samples, {}))) == samples


@pytest.mark.parametrize(
    ("fields", "fault"),
    [
        ({"doc_to_audio": "answer"}, "doc_to_audio: sound is not supported, only images are; leave the benchmark out"),
        ({"output_type": "multiple_choice", "doc_to_choice": "[dark, light]"}, "only 'generate_until' is supported"),
        ({"num_fewshot": "1"}, "set num_fewshot: 0"),
        ({"doc_to_image": "!function hooks.tell"}, "doc_to_image must give PIL images"),
        ({"doc_to_text": "Dark or light?"}, "doc 0 has 1 images and 0 times <image> in its prompt"),
    ],
)
def test_what_cannot_be_asked_is_refused(tmp_path: Path, fields: dict[str, str], fault: str) -> None:
    with pytest.raises(UserError, match=f"'shades': .*{fault}"):
        load(own_benchmark(tmp_path, **fields))


def test_a_model_that_takes_no_images_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="'shades' asks about images, and the model takes none"):
        load_benchmark(BenchmarkSpec(name=str(own_benchmark(tmp_path))), chat=None, seed=0)


def test_it_is_refused_before_anything_is_loaded(tmp_path: Path) -> None:
    text = write_checkpoint(tmp_path / "text")
    sight = write_checkpoint(
        tmp_path / "sight", architectures=["LlavaForConditionalGeneration"], model_type="llava", vision_config={}
    )
    spec = CampaignSpec.model_validate(
        {
            "name": "c",
            "models": [{"model": str(text), "name": "text"}, {"model": str(sight), "name": "sight"}],
            "benchmarks": ["steelyard_shapes", "mmmu_val", "steelyard_facts"],
            "fleet": {"gpus": 1, "gpu_memory_gb": 16, "device": "cuda"},
        }
    )
    with pytest.raises(UserError) as error:
        make_plan(spec)
    lines = [line for line in str(error.value).splitlines() if "takes no images" in line]
    assert [line.split("'")[1::2] for line in lines] == [["text", "steelyard_shapes"], ["text", "mmmu_val"]]


@pytest.mark.parametrize("fields", [{"num_fewshot": "2"}, {"doc_to_audio": "answer"}])
def test_sound_and_shots_are_refused_before_anything_is_loaded(tmp_path: Path, fields: dict[str, str]) -> None:
    file = own_benchmark(tmp_path, **fields)
    with pytest.raises(UserError, match="'shades'"):
        benchmark_asks_images(str(file))


@pytest.mark.parametrize(
    ("own", "asked", "refused"), [("", 2, True), ("0", 2, False), ("2", 0, False), ("", None, False)]
)
def test_the_campaigns_shots_count_as_they_do_when_it_is_loaded(
    tmp_path: Path, own: str, asked: int | None, refused: bool
) -> None:
    file = own_benchmark(tmp_path, num_fewshot=own)
    if refused:
        with pytest.raises(UserError, match=f"num_fewshot = {asked}: the examples would come without their images"):
            benchmark_asks_images(str(file), asked)
    else:
        assert benchmark_asks_images(str(file), asked)
    if not refused:
        assert load(file, num_fewshot=asked)
