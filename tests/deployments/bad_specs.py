"""Wrong values for every field of a campaign's spec, from the fields themselves: a new field has its wrong values at once."""

from __future__ import annotations

import copy
import itertools
import math
from collections.abc import Iterator
from types import NoneType
from typing import Annotated, Any, Literal, get_args, get_origin

from pydantic.fields import FieldInfo

from core.campaign import CampaignSpec
from core.strict import Strict

Path = tuple[str | int, ...]
# Of each kind, what it is not. YAML can say all of it.
WRONG: dict[Any, list[Any]] = {
    str: [5, True, ["text"], {"text": 1}],
    int: ["five", 1.5, True, [1], {}],
    float: ["much", True, math.nan, math.inf, [1.0]],
    bool: ["perhaps", 5, [], 0.5],
    list: ["text", 5, {"a": 1}],
    dict: ["text", 5, [1]],
    Literal: ["no-such-choice", 5, True, ["auto"]],
    Strict: [5, True, ["text"]],
}

NULL_IS_LEFT_OUT: Path = ("models", 0, "name")


def bad_values(spec: type[Strict], above: Path = ()) -> Iterator[tuple[Path, Any]]:
    """Give (where, wrong value) for every field of ``spec`` and of what it holds; ``None`` where that is not allowed."""
    for name, field in spec.model_fields.items():
        where = (*above, name)
        kinds = list(_kinds(field.annotation))
        wrong = {repr(value): value for kind in kinds for value in WRONG[_known(kind)]}
        right = {repr(value) for kind in kinds for value in _also_right(kind, field)}
        yield from ((where, value) for text, value in wrong.items() if text not in right)
        if NoneType not in get_args(_bare(field.annotation)) and where != NULL_IS_LEFT_OUT:
            yield where, None
        yield from ((where, value) for value in _out_of_range(field))
        for inner, place in _inside(field.annotation, where):
            yield from bad_values(inner, place)
            yield place, {"no_such_field": 1}


def placed(base: dict[str, Any], where: Path, value: Any) -> dict[str, Any]:
    """Return ``base`` with ``value`` at ``where``; what is missing on the way is made."""
    spec = copy.deepcopy(base)
    at: Any = spec
    for part, following in itertools.pairwise(where):
        if isinstance(at, dict):
            at = at.setdefault(part, [] if isinstance(following, int) else {})
        else:
            at.extend({} for _ in range(part + 1 - len(at))) if isinstance(part, int) else None
            at = at[part]
    if isinstance(at, list) and isinstance(where[-1], int) and where[-1] >= len(at):
        at.append(value)
    else:
        at[where[-1]] = value
    return spec


def written(where: Path) -> str:
    """Write a place as messages do."""
    return "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in where).lstrip(".")


def _bare(annotation: Any) -> Any:
    return _bare(get_args(annotation)[0]) if get_origin(annotation) is Annotated else annotation


def _kinds(annotation: Any) -> Iterator[Any]:
    """Give the kinds of value that an annotation allows, None left out."""
    annotation = _bare(annotation)
    if get_origin(annotation) in (list, dict, Literal):
        yield get_origin(annotation)
    elif get_args(annotation):
        for each in get_args(annotation):
            yield from _kinds(each)
    elif annotation is not NoneType:
        yield annotation


def _known(kind: Any) -> Any:
    return Strict if isinstance(kind, type) and issubclass(kind, Strict) else kind


def _also_right(kind: Any, field: FieldInfo) -> list[Any]:
    """What of the wrong values another kind of the same field would take."""
    if kind is float:
        return [5]
    if _known(kind) is Strict:
        return [{}, {"a": 1}]
    return []


def _inside(annotation: Any, where: Path) -> Iterator[tuple[type[Strict], Path]]:
    annotation = _bare(annotation)
    if isinstance(annotation, type) and issubclass(annotation, Strict):
        yield annotation, where
    for each in get_args(annotation):
        yield from _inside(each, (*where, 0) if get_origin(annotation) is list else where)


def _out_of_range(field: FieldInfo) -> Iterator[Any]:
    kinds = list(_kinds(field.annotation))
    for limit in _limits(field.annotation, field):
        for bound, value in (("gt", 0), ("ge", -1), ("lt", 0), ("le", 1), ("min_length", None)):
            if (at := getattr(limit, bound, None)) is not None:
                yield ([] if list in kinds else "") if bound == "min_length" else at + (value or 0)


def _limits(annotation: Any, field: FieldInfo | None = None) -> Iterator[Any]:
    if field is not None:
        yield from field.metadata
    if get_origin(annotation) is Annotated:
        for each in get_args(annotation)[1:]:
            yield from each.metadata if isinstance(each, FieldInfo) else [each]
        annotation = get_args(annotation)[0]
    if get_origin(annotation) not in (list, dict):
        for each in get_args(annotation):
            yield from _limits(each)


FIELDS = list(bad_values(CampaignSpec))
