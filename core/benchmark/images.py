"""Images of benchmarks: lossless bytes with a digest, and where lm-evaluation-harness's ``<image>`` stands in a prompt."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from core.benchmark.find import leaves_of
from core.errors import UserError
from core.request import Request

PLACEHOLDER = "<image>"  # in the prompts of the harness's tasks, one for each image
PNG_MODES = ("1", "L", "LA", "RGB", "RGBA")


@dataclass(frozen=True, slots=True)
class EncodedImage:
    """An image as PNG. ``sha256`` is of its mode, size and pixels, so it does not change with the encoder's version."""

    png: bytes
    sha256: str


def asks_images(name: str, config: Mapping[str, Any]) -> bool:
    """Return whether a task's YAML asks about images. Raises `core.errors.UserError` for media that no engine here takes."""
    if config.get("doc_to_audio"):
        raise UserError(
            f"benchmark {name!r}: doc_to_audio: sound is not supported, only images are; leave the benchmark out"
        )
    if not config.get("doc_to_image"):
        return False
    kind = config.get("output_type") or "generate_until"
    if kind != "generate_until":
        raise UserError(f"benchmark {name!r}: output_type = {kind!r}: with images only 'generate_until' is supported")
    return True


def benchmark_asks_images(name: str, num_fewshot: int | None = None) -> bool:
    """Return whether the YAML of any task of a benchmark asks about images; loads no dataset.

    ``num_fewshot`` is what the campaign asks for. Raises `core.errors.UserError` for media that no engine here takes, and where
    few-shot examples would come without their images.
    """
    asking = [leaf for leaf in leaves_of(name) if asks_images(leaf.name, leaf.config)]
    for leaf in asking:
        own = leaf.config.get("num_fewshot")
        _check_shots(leaf.name, own if num_fewshot is None or own == 0 else num_fewshot)
    return bool(asking)


def _check_shots(name: str, examples: int | None) -> None:
    if examples:
        raise UserError(
            f"benchmark {name!r}: num_fewshot = {examples}: the examples would come without their images, set num_fewshot: 0"
        )


def task_asks_images(name: str, task: Any, *, takes_images: bool) -> bool:
    """Return whether a loaded lm-eval task asks about images.

    Raises `core.errors.UserError` where the model takes none, or where few-shot examples would come without theirs.
    """
    config = {key: task.get_config(key) for key in ("doc_to_image", "doc_to_audio", "output_type")}
    if not (asks_images(name, config) or getattr(task, "MULTIMODAL", False)):
        return False
    if not takes_images:
        raise UserError(f"benchmark {name!r} asks about images, and the model takes none")
    _check_shots(name, task.get_config("num_fewshot"))
    return True


def encode_image(image: Any) -> EncodedImage:
    """Encode a PIL image, or an undecoded one of ``datasets`` (its bytes, or a mapping with ``bytes`` or ``path``).

    Modes that PNG has no word for become RGB, which is what processors would make of them. Raises `TypeError` for anything else.
    """
    from PIL import Image

    if isinstance(image, Mapping):
        image = image.get("bytes") or Image.open(str(image.get("path")))
    if isinstance(image, bytes):
        image = Image.open(io.BytesIO(image))
    if not isinstance(image, Image.Image):
        raise TypeError(f"a {type(image).__name__}: doc_to_image must give PIL images")
    if image.mode not in PNG_MODES:
        image = image.convert("RGBA" if image.mode == "PA" or "transparency" in image.info else "RGB")
    pixels = image.tobytes()
    buffer = io.BytesIO()
    # From the pixels alone: what else a file says (orientation, colour profile) is not what the harness's processors see.
    Image.frombytes(image.mode, image.size, pixels).save(buffer, "png", compress_level=1)
    digest = hashlib.sha256(f"{image.mode} {image.width} {image.height}\n".encode() + pixels)
    return EncodedImage(buffer.getvalue(), digest.hexdigest())


def images_of(instance: Any) -> tuple[EncodedImage, ...]:
    """Return the images of an lm-eval instance that `hold_images` has seen."""
    media = instance.args[-1]
    return media["visual"] if isinstance(media, dict) and isinstance(media.get("visual"), tuple) else ()


def hold_images(instances: Iterable[Any], token: str | None) -> None:
    """Replace the images that lm-eval's instances hold by encoded ones; write ``token`` for ``<image>`` where it is given.

    Raises `core.errors.UserError` for what is no image, and where such a prompt has not one placeholder for each of them.
    """
    for instance in instances:
        prompt, *rest, media = instance.args
        visual = media["visual"]
        try:
            images = tuple(encode_image(image) for image in (visual if isinstance(visual, list | tuple) else [visual]))
        except (TypeError, OSError) as error:
            raise UserError(f"benchmark {instance.task_name!r}: image of doc {instance.doc_id}: {error}") from error
        if token is not None:
            if (places := prompt.count(PLACEHOLDER)) != len(images):
                raise UserError(
                    f"benchmark {instance.task_name!r}: doc {instance.doc_id} has {len(images)} images and {places} times "
                    f"{PLACEHOLDER} in its prompt: doc_to_text must place each of them once"
                )
            prompt = prompt.replace(PLACEHOLDER, token)
        instance.arguments = (prompt, *rest, {"visual": images})


def identities(requests: Iterable[Request], instances: Iterable[Any]) -> list[dict[str, Any]]:
    """Return requests as JSON values, images by digest. None are not mentioned: text keeps its fingerprints."""
    digests = {image.png: image.sha256 for instance in instances for image in images_of(instance)}
    found = []
    for request in requests:
        values = asdict(request)
        if images := values.pop("images", ()):
            values["images"] = [digests[png] for png in images]
        found.append(values)
    return found


def in_parts(render: Callable[..., str]) -> Callable[..., str]:
    """Wrap a chat template's ``render`` so that each ``<image>`` of a message becomes a content part of its own.

    The parts are those of lm-evaluation-harness's ``hf-multimodal`` backend with ``interleave=True``, its default.
    """

    def render_parts(messages: Sequence[Mapping[str, Any]], **options: Any) -> str:
        return render([{**message, "content": _parts(message["content"])} for message in messages], **options)

    return render_parts


def _parts(text: str) -> list[dict[str, str]]:
    parts: list[dict[str, str]] = []
    for index, piece in enumerate(text.split(PLACEHOLDER)):
        if index:
            parts.append({"type": "image"})
        if piece:
            parts.append({"type": "text", "text": piece})
    return parts


def in_words(value: Any) -> str:
    """Return a short text for a value that JSON has no word for, the same for the same value."""
    from PIL import Image

    if isinstance(value, Image.Image):
        return f"<image {value.mode} {value.width}x{value.height}>"
    return f"<{len(value)} bytes>" if isinstance(value, bytes) else str(value)
