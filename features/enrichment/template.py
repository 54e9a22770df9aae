"""From a row of features to the text that is added to the prompt."""

from __future__ import annotations

import datetime as dt
import json
from collections.abc import Callable, Mapping
from typing import Any, Final, Protocol

import jinja2
from jinja2.sandbox import ImmutableSandboxedEnvironment

from features.enrichment.desk import support_desk
from features.online.service import FeatureRow

_RENDER_ERRORS = (
    jinja2.TemplateError,
    ArithmeticError,
    AttributeError,
    LookupError,
    TypeError,
    ValueError,
)


class TemplateFailedError(Exception):
    """The features do not go into the template."""


class Template(Protocol):
    """Renders a row; no text means that nothing is added."""

    def render(self, row: FeatureRow, today: dt.date) -> str:
        """Raises: TemplateFailedError: the features do not fit."""
        ...


class _Function:
    def __init__(self, function: Callable[[Mapping[str, Any], dt.date], str]) -> None:
        self._function = function

    def render(self, row: FeatureRow, today: dt.date) -> str:
        try:
            return self._function(row.values, today)
        except _RENDER_ERRORS as error:
            raise TemplateFailedError(str(error)) from error


class _Text:
    def __init__(self, source: str) -> None:
        environment = ImmutableSandboxedEnvironment(
            trim_blocks=True, lstrip_blocks=True, undefined=jinja2.StrictUndefined
        )
        environment.filters["fromjson"] = json.loads
        self._template = environment.from_string(source)

    def render(self, row: FeatureRow, today: dt.date) -> str:
        try:
            text = self._template.render(
                row.values, features=row.values, views=row.views, today=today
            )
        except _RENDER_ERRORS as error:
            raise TemplateFailedError(str(error)) from error
        return text.strip()


BUILT_IN: Final[Mapping[str, Callable[[Mapping[str, Any], dt.date], str]]] = {
    "support_desk": support_desk
}


def build_template(text: str) -> Template:
    """A built-in one by its name, else jinja2 in its sandbox.

    The template sees each feature by its name, ``features`` (all of them), ``views`` (the state of
    each view) and ``today``; the filter ``fromjson`` reads JSON.

    Raises:
        ValueError: neither a built-in name nor a valid template.
    """
    if text in BUILT_IN:
        return _Function(BUILT_IN[text])
    if "{" not in text:
        raise ValueError(f"no template named {text!r}; known: {', '.join(BUILT_IN)}")
    try:
        return _Text(text)
    except jinja2.TemplateSyntaxError as error:
        raise ValueError(f"line {error.lineno}: {error.message}") from None
