"""Beside recipe: turns what pydantic found into sentences that name the file, the key and the accepted values."""

import difflib
import typing
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ValidationError
from pydantic.fields import FieldInfo
from pydantic_core import ErrorDetails


class RecipeError(ValueError):
    """A recipe that cannot be used; the text says what to change, one sentence for each mistake."""


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """` Did you mean x?`, or nothing when no known word is near."""
    near = difflib.get_close_matches(word, list(known), n=1)
    return f" Did you mean {near[0]}?" if near else ""


def sentences(path: Path, model: type[BaseModel], error: ValidationError, where: str) -> Iterator[str]:
    """One sentence for each mistake; `where` comes before the key (`quick.` for overrides)."""
    for detail in error.errors(include_url=False):
        yield _sentence(path, model, detail, where)


def _sentence(path: Path, model: type[BaseModel], detail: ErrorDetails, where: str) -> str:
    key = where + _dotted(detail["loc"])
    holder, field = _walk(model, detail["loc"])
    if detail["type"] == "extra_forbidden":
        known = list(holder.model_fields)
        word = str(detail["loc"][-1])
        return f"{path}: there is no key {key}.{did_you_mean(word, known)} Known here: {', '.join(known)}."
    accepted = f" Accepted: {field.description}." if field and field.description else ""
    if detail["type"] == "missing":
        return f"{path}: {key} is missing.{accepted}"
    if detail["type"] == "value_error":
        prefix = f"{key.removesuffix('.')}: " if key else ""
        return f"{path}: {prefix}{detail['ctx']['error']}."
    return f"{path}: {key} is {_shown(detail['input'])}, which cannot be used.{accepted or ' ' + detail['msg'] + '.'}"


def _shown(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."


def _dotted(location: tuple[int | str, ...]) -> str:
    """`("compression", "pruning", 1, "ratio")` becomes `compression.pruning[1].ratio`."""
    text = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in location)
    return text.removeprefix(".")


def _walk(model: type[BaseModel], location: tuple[int | str, ...]) -> tuple[type[BaseModel], FieldInfo | None]:
    """The model that holds the last key of a location, and that key's field where there is one."""
    holder, field = model, None
    for depth, part in enumerate(location):
        if isinstance(part, int):
            continue
        field = holder.model_fields.get(part)
        inner = _inner_model(field.annotation) if field else None
        if inner and depth < len(location) - 1:
            holder, field = inner, None if isinstance(location[-1], int) else field
    return holder, field


def _inner_model(annotation: Any) -> type[BaseModel] | None:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    return next((found for part in typing.get_args(annotation) if (found := _inner_model(part))), None)
