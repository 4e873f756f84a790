"""The base of everything that a person writes, in a file or in the Prefect UI's form."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, ConfigDict, model_validator
from pydantic.fields import ComputedFieldInfo, FieldInfo

from core.errors import nearest

SPELLINGS = {
    "gpu": "GPU",
    "gpus": "GPUs",
    "gb": "GB",
    "vllm": "vLLM",
    "kv": "KV",
    "kuberay": "KubeRay",
    "rrule": "RRule",
    "cpu": "CPU",
}


def field_title(name: str, _: FieldInfo | ComputedFieldInfo) -> str:
    """Turn a field's name into the form's label."""
    words = [SPELLINGS.get(word, word) for word in name.split("_")]
    return " ".join([words[0] if words[0] in SPELLINGS.values() else words[0].capitalize(), *words[1:]])


def for_the_form(schema: dict[str, Any]) -> None:
    """Write descriptions as the form shows them, markdown on one line, and say the order: PostgreSQL keeps none in JSON."""
    for position, field in enumerate(schema.get("properties", {}).values()):
        field["position"] = position
        if "description" in field:
            field["description"] = " ".join(field["description"].replace("``", "`").split())


class Strict(BaseModel):
    """Refuses unknown fields with the nearest known one; frozen."""

    model_config = ConfigDict(
        extra="forbid",
        frozen=True,
        use_attribute_docstrings=True,
        field_title_generator=field_title,
        json_schema_extra=for_the_form,
    )

    @model_validator(mode="before")
    @classmethod
    def _known_fields(cls, data: Any) -> Any:
        if isinstance(data, dict):
            unknown = [str(key) for key in data if key not in cls.model_fields]
            if unknown:
                raise ValueError(", ".join(f"unknown field {key!r}{nearest(key, cls.model_fields)}" for key in unknown))
        return data
