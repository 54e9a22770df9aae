"""A model's chat template: which shape of messages it takes, and the text it makes of them.

The engine's renderer decides the same things by the same signs, so that a prompt has the same token
ids wherever it is rendered; ``tests/deployments/test_rendering.py`` compares the two.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from functools import lru_cache
from typing import Any

import jinja2
from jinja2 import meta, nodes
from jinja2.ext import Extension, loopcontrols
from jinja2.sandbox import ImmutableSandboxedEnvironment
from jinja2.utils import Namespace

from weir.errors import BadRequestError

#: Marks where the final message ends, while a template renders one that is to be continued. The
#: space at its end tells whether the template strips what it prints.
_CONTINUE_MARK = "CONTINUE_FINAL_MESSAGE_TAG "

#: Filters and methods that make other text of a text than a part of it.
_REWRITING = frozenset(
    {
        "replace",
        "translate",
        "striptags",
        "reverse",
        "lower",
        "upper",
        "title",
        "capitalize",
        "swapcase",
        "casefold",
    }
)

Message = dict[str, Any]


class ChatTemplate:
    """One compiled template.

    ``takes_parts``: it loops over a message's content, so it is given lists of parts; other
    templates are given text. ``knows_developer``: it has a branch for that role. ``variables``:
    the names it reads; other arguments are not passed to it.

    ``literals``: all text of its own; ``constants``: that of its expressions. ``rewrites``: it may
    change or take out parts inside a text. ``escapes``: it may print JSON in ASCII.
    """

    def __init__(self, source: str) -> None:
        environment = _environment()
        tree = environment.parse(source)
        self._template = environment.from_string(source)
        self.takes_parts = _loops_over_content(tree)
        self.knows_developer = '"developer"' in source or "'developer'" in source
        self.variables = frozenset(meta.find_undeclared_variables(tree))
        self.constants = frozenset(
            each.value for each in tree.find_all(nodes.Const) if isinstance(each.value, str)
        )
        self.literals = self.constants | {each.data for each in tree.find_all(nodes.TemplateData)}
        used = {each.name for each in tree.find_all(nodes.Filter)}
        used |= {each.attr for each in tree.find_all(nodes.Getattr)}
        self.rewrites = not used.isdisjoint(_REWRITING) or used >= {"split", "join"}
        self.escapes = "ensure_ascii" in source
        self._mentions_content = "content" in source

    def render(
        self,
        messages: Sequence[Message],
        *,
        tools: Sequence[Mapping[str, Any]] | None,
        documents: Sequence[Mapping[str, Any]] | None,
        add_generation_prompt: bool,
        continue_final_message: bool,
        arguments: Mapping[str, Any],
    ) -> str:
        """The prompt's text.

        Raises:
            BadRequestError: the template failed, or the final message cannot be continued.
        """
        last = self._text_to_continue(messages) if continue_final_message else None
        if last is not None:
            messages = [*messages[:-1], _marked(messages[-1])]
        fields = {
            **arguments,
            "messages": messages,
            "tools": tools,
            "documents": documents,
            "add_generation_prompt": add_generation_prompt,
        }
        try:
            text = self._template.render(fields)
        # A template is foreign code that sees the client's data: it can raise anything, and
        # whatever it raises is about this one conversation.
        except Exception as error:
            reason = str(error) or type(error).__name__
            raise BadRequestError(
                f"messages: the model's chat template refused them: {reason}", param="messages"
            ) from error
        return text if last is None else _cut_at_mark(text, last)

    def _text_to_continue(self, messages: Sequence[Message]) -> str:
        content = messages[-1].get("content")
        if isinstance(content, list):
            texts = [part["text"] for part in content if "text" in part]
            content = texts[-1] if texts else None
        if not isinstance(content, str) or not self._mentions_content:
            raise BadRequestError(
                "continue_final_message: the final message has no text to continue.",
                param="continue_final_message",
            )
        return content


def _marked(message: Message) -> Message:
    content = message["content"]
    if isinstance(content, str):
        return {**message, "content": content + _CONTINUE_MARK}
    parts = list(content)
    place = max(i for i, part in enumerate(parts) if "text" in part)
    parts[place] = {**parts[place], "text": parts[place]["text"] + _CONTINUE_MARK}
    return {**message, "content": parts}


def _cut_at_mark(text: str, last: str) -> str:
    mark = _CONTINUE_MARK.strip()
    if mark not in text or last.strip() not in text:
        raise BadRequestError(
            "continue_final_message: the model's chat template does not print the final message "
            "as it is, so it cannot be continued.",
            param="continue_final_message",
        )
    end = text.rindex(mark)
    kept = text[:end]
    printed_as_given = text[end : end + len(_CONTINUE_MARK)] == _CONTINUE_MARK
    return kept if printed_as_given else kept.rstrip()


def _loops_over_content(tree: nodes.Template) -> bool:
    """Whether the template takes a message's parts one by one.

    The sign is a loop over ``content`` of a message, where a message is what a loop over
    ``messages`` (or over a variable made from it) yields, or over a variable named ``content``.
    An assignment or loop that unpacks such a value is not followed: the answer is then no.
    """
    try:
        loops = list(tree.find_all(nodes.For))
        histories = _names_of(tree, "messages")
        messages = [
            _plain_name(loop.target)
            for loop in loops
            if any(_reads(loop.iter, name) for name in histories)
        ]
        for loop in loops:
            named_so = isinstance(loop.iter, nodes.Name) and loop.iter.name == "content"
            if named_so or any(_reads(loop.iter, name, "content") for name in messages):
                _plain_name(loop.target)
                return True
    except _UnpackedError:
        pass
    return False


class _UnpackedError(Exception):
    """A value is assigned to something that is no plain variable."""


def _plain_name(target: nodes.Node) -> str:
    if not isinstance(target, nodes.Name):
        raise _UnpackedError
    return target.name


def _names_of(tree: nodes.Template, first: str) -> list[str]:
    """``first`` and every variable that is assigned from it, directly or through others."""
    names = [first]
    for name in names:  # grows while it is read
        for assign in tree.find_all(nodes.Assign):
            if _reads(assign.node, name):
                target = _plain_name(assign.target)
                if target not in names:
                    names.append(target)
    return names


def _reads(node: nodes.Node | None, name: str, key: str | None = None) -> bool:
    """Whether ``node`` is the variable ``name`` (or its member ``key``), filtered or sliced."""
    while True:
        sliced = isinstance(node, nodes.Getitem) and isinstance(node.arg, nodes.Slice)
        if not sliced and not isinstance(node, nodes.Filter | nodes.Test):
            break
        node = node.node  # type: ignore[union-attr]
    if key is not None:
        if isinstance(node, nodes.Getattr):
            named = node.attr == key
        elif isinstance(node, nodes.Getitem):
            named = isinstance(node.arg, nodes.Const) and node.arg.value == key
        else:
            return False
        if not named:
            return False
        node = node.node
    return isinstance(node, nodes.Name) and node.ctx == "load" and node.name == name


class _GenerationTag(Extension):
    """``{% generation %}`` marks the assistant's text for training; here it is transparent."""

    tags = {"generation"}  # noqa: RUF012 - jinja's own interface

    def parse(self, parser: Any) -> Any:
        next(parser.stream)
        # A scope of its own, as where the tag is a call block: what is set inside stays inside.
        body = parser.parse_statements(("name:endgeneration",), drop_needle=True)
        return nodes.Scope(body)


class _Dict:
    """``dict`` for templates, without the attributes of Python's own type."""

    def __call__(self, *args: Any, **kwargs: Any) -> dict[Any, Any]:
        return dict(*args, **kwargs)

    def fromkeys(self, keys: Iterator[Any], value: Any = None) -> dict[Any, Any]:
        return dict.fromkeys(keys, value)


@lru_cache(maxsize=1)
def _environment() -> ImmutableSandboxedEnvironment:
    # The settings and names that chat templates on the hub are written for.
    environment = ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=[_GenerationTag, loopcontrols]
    )
    environment.filters["tojson"] = _to_json
    environment.globals["raise_exception"] = _raise
    environment.globals["strftime_now"] = lambda form: datetime.now().strftime(form)
    environment.globals["dict"] = _Dict()
    environment.globals["namespace"] = Namespace
    return environment


def _to_json(
    x: Any,
    ensure_ascii: bool = False,
    indent: int | str | None = None,
    separators: tuple[str, str] | None = None,
    sort_keys: bool = False,
) -> str:
    # Jinja's own filter escapes HTML. Names and order of the arguments are what templates rely on.
    return json.dumps(
        x, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys
    )


def _raise(message: str) -> None:
    raise jinja2.TemplateError(message)
