"""Chat templates, wherever a checkpoint keeps them, and the token that marks an image where there is none."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from core.benchmark.prepare import chat_renderer, image_token
from core.errors import UserError

TURN = [{"role": "user", "content": "Hi"}]
PARTS = [{"role": "user", "content": [{"type": "image"}, {"type": "text", "text": "Hi"}]}]
PLAIN = "{% for turn in messages %}tokenizer:{{ turn.content }}{% endfor %}"
PARTED = "{% for turn in messages %}{% for part in turn.content %}{{ part.type }};{% endfor %}{% endfor %}"


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    """A tokenizer of three words, one of them an image's."""
    from tokenizers import Tokenizer
    from tokenizers.models import WordLevel
    from transformers import PreTrainedTokenizerFast

    words = Tokenizer(WordLevel({"Hi": 0, "<pic>": 1, "?": 2}, unk_token="?"))
    PreTrainedTokenizerFast(tokenizer_object=words, additional_special_tokens=["<pic>"]).save_pretrained(tmp_path)
    return tmp_path


def keep(checkpoint: Path, file: str, template: str) -> None:
    (checkpoint / file).write_text(template if file.endswith(".jinja") else json.dumps({"chat_template": template}))


def test_a_checkpoint_without_template_is_refused(checkpoint: Path) -> None:
    with pytest.raises(UserError, match="set chat_template: false"):
        chat_renderer(checkpoint)


def test_the_processors_template_is_for_messages_in_parts(checkpoint: Path) -> None:
    config = checkpoint / "tokenizer_config.json"
    config.write_text(json.dumps({**json.loads(config.read_text()), "chat_template": PLAIN}))
    keep(checkpoint, "chat_template.json", PARTED)
    render = chat_renderer(checkpoint)
    assert (render(TURN), render(PARTS)) == ("tokenizer:Hi", "image;text;")


def test_it_is_for_all_messages_where_the_tokenizer_has_none(checkpoint: Path) -> None:
    keep(checkpoint, "chat_template.json", "{{ messages | length }}")
    assert chat_renderer(checkpoint)(TURN) == "1"


def test_a_template_file_of_today_goes_before_that_of_older_processors(checkpoint: Path) -> None:
    keep(checkpoint, "chat_template.json", "old")
    keep(checkpoint, "chat_template.jinja", PARTED)
    assert chat_renderer(checkpoint)(PARTS) == "image;text;"


@pytest.mark.parametrize("field", ["image_token_id", "image_token_index"])
def test_the_image_token_is_the_configs(checkpoint: Path, field: str) -> None:
    (checkpoint / "config.json").write_text(json.dumps({"model_type": "llava", field: 1}))
    assert image_token(checkpoint) == "<pic>"


def test_a_config_without_one_is_refused(checkpoint: Path) -> None:
    (checkpoint / "config.json").write_text(json.dumps({"model_type": "llama"}))
    with pytest.raises(UserError, match="no image_token_id.*set chat_template: true"):
        image_token(checkpoint)


def test_a_template_file_that_holds_none_is_refused(checkpoint: Path) -> None:
    (checkpoint / "chat_template.json").write_text('{"template": ""}')
    with pytest.raises(UserError, match=r"chat_template: '.*chat_template.json' holds none; fetch the file again"):
        chat_renderer(checkpoint)


@pytest.mark.parametrize("several", [[{"name": "default", "template": PARTED}], {"default": PARTED, "rag": "rag"}])
def test_of_several_templates_of_the_processor_its_default_is_taken(checkpoint: Path, several: Any) -> None:
    (checkpoint / "chat_template.json").write_text(json.dumps({"chat_template": several}))
    assert chat_renderer(checkpoint)(PARTS) == "image;text;"


def test_a_tokenizer_that_cannot_be_loaded_is_refused_on_one_line(checkpoint: Path) -> None:
    (checkpoint / "tokenizer.json").write_text("{")
    with pytest.raises(UserError, match=r"^chat_template: the tokenizer in '.*' cannot be loaded: [^\n]+$"):
        chat_renderer(checkpoint)
