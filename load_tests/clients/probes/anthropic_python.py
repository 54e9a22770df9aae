"""anthropic, the official client for Python."""

from __future__ import annotations

from typing import Any, Literal

import anthropic
import harness
from harness import (
    LONG,
    MESSAGES,
    ORDERS,
    SCHEMA,
    NotApplicable,
    Server,
    abandoned,
    check,
    check_call,
    expect,
)
from pydantic import BaseModel

TOOL: Any = {"name": "cancel_order", "input_schema": SCHEMA}
FORCED: Any = {"type": "tool", "name": "cancel_order"}


class Order(BaseModel):
    """What the answer is to look like."""

    order: Literal["first", "second"]


def client(server: Server, key: str | None = None) -> anthropic.Anthropic:
    """The client as its documentation makes it."""
    key = key or server.key
    return anthropic.Anthropic(base_url=server.url, api_key=key, max_retries=0, timeout=80)


def create(server: Server, **fields: Any) -> Any:
    """One message."""
    told = {"model": server.model, "messages": MESSAGES, "max_tokens": 48, **fields}
    return client(server).messages.create(**told)


def whole(server: Server) -> None:
    check(create(server).content[0].text, "no text")


def stream(server: Server) -> None:
    with client(server).messages.stream(
        model=server.model, messages=MESSAGES, max_tokens=32
    ) as told:
        pieces = list(told.text_stream)
        check(told.get_final_message().content[0].text == "".join(pieces), "pieces")
    check(len(pieces) > 3, f"{len(pieces)} pieces")


def used(message: Any) -> Any:
    """The tool's block in a message."""
    return next(block for block in message.content if block.type == "tool_use")


def tools(server: Server) -> None:
    block = used(create(server, tools=[TOOL], tool_choice=FORCED))
    check_call(block.name, block.input)


def tools_streamed(server: Server) -> None:
    with client(server).messages.stream(
        model=server.model, messages=MESSAGES, max_tokens=48, tools=[TOOL], tool_choice=FORCED
    ) as told:
        kinds = [event.type for event in told]
        block = used(told.get_final_message())
    check("input_json" in kinds, kinds)
    check_call(block.name, block.input)


def tool_loop(server: Server) -> None:
    first = create(server, tools=[TOOL], tool_choice=FORCED)
    result = {"type": "tool_result", "tool_use_id": used(first).id, "content": "done"}
    turns = [
        *MESSAGES,
        {"role": "assistant", "content": first.content},
        {"role": "user", "content": [result]},
    ]
    second = create(server, messages=turns, tools=[TOOL], tool_choice={"type": "none"})
    check(second.content[0].text, "no text after the tool's result")


def json_helper(server: Server) -> None:
    answer = client(server).messages.parse(
        model=server.model, messages=MESSAGES, max_tokens=48, output_format=Order
    )
    check(answer.parsed_output.order in ORDERS, answer)


def usage(server: Server) -> None:
    greedy = {"temperature": 0}
    message = create(server, extra_body=greedy)
    told = client(server).messages.count_tokens(model=server.model, messages=MESSAGES)
    counted = message.usage.input_tokens + (message.usage.cache_read_input_tokens or 0)
    check(counted == told.input_tokens, f"{counted} counted, {told.input_tokens} told")


def cancel(server: Server) -> None:
    with abandoned(server):
        more = {"ignore_eos": True}
        told = create(server, stream=True, max_tokens=LONG, extra_body=more)
        next(iter(told))
        told.close()


def errors(server: Server) -> None:
    call: Any = {"messages": MESSAGES, "max_tokens": 8}
    wrong = client(server, "weir_wrong").messages
    right = client(server).messages
    expect(anthropic.AuthenticationError, lambda: wrong.create(model=server.model, **call))
    expect(anthropic.NotFoundError, lambda: right.create(model="no-such-model", **call))
    bad = {"temperature": 99}
    expect(
        anthropic.BadRequestError, lambda: right.create(model=server.model, extra_body=bad, **call)
    )


def none(_: Server) -> None:
    raise NotApplicable("Messages has no such field")


PROBES = {
    "anthropic-python/chat": whole,
    "anthropic-python/stream": stream,
    "anthropic-python/tools": tools,
    "anthropic-python/tools streamed": tools_streamed,
    "anthropic-python/tool loop": tool_loop,
    "anthropic-python/json": json_helper,
    "anthropic-python/logprobs": none,
    "anthropic-python/n": none,
    "anthropic-python/usage": usage,
    "anthropic-python/cancel": cancel,
    "anthropic-python/errors": errors,
}

if __name__ == "__main__":
    harness.run(PROBES)
