"""The base of everything that a person writes, in a file or in the Prefect UI's form."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any, get_args

from pydantic import BaseModel, ConfigDict, ValidationInfo, field_validator, model_validator
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
        allow_inf_nan=False,
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
                known = cls.model_fields
                raise ValueError(
                    ", ".join(f"unknown field {key!r}{nearest(key, known) or _one_of(known)}" for key in unknown)
                )
        return data

    @field_validator("*", mode="before")
    @classmethod
    def _no_switch_for_a_number(cls, value: Any, info: ValidationInfo) -> Any:
        """Refuse what pydantic would take for 0 and 1; YAML reads ``yes`` and ``off`` so."""
        kinds = _kinds(cls.model_fields[info.field_name or ""].annotation)
        if isinstance(value, bool) and not kinds.isdisjoint({int, float}) and bool not in kinds:
            raise ValueError("use a number")
        return value


def _kinds(annotation: Any) -> set[Any]:
    """Return the plain types that an annotation allows."""
    inner = get_args(annotation)
    return {kind for each in inner for kind in _kinds(each)} if inner else {annotation}


def _one_of(known: Collection[str]) -> str:
    return f": use one of {', '.join(known)}"
