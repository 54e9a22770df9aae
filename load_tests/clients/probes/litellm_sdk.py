"""LiteLLM's SDK with its providers ``openai/`` and ``anthropic/``, and its Responses."""

from __future__ import annotations

import asyncio
from typing import Any, Literal

import harness
import litellm
from harness import (
    LONG,
    MESSAGES,
    ORDERS,
    QUESTION,
    SCHEMA,
    NotApplicable,
    Probe,
    Server,
    abandoned,
    check,
    check_call,
    expect,
)
from pydantic import BaseModel

TOOL: Any = {
    "type": "function",
    "function": {"name": "cancel_order", "description": "Cancel.", "parameters": SCHEMA},
}
FORCED: Any = {"type": "function", "function": {"name": "cancel_order"}}
FLAT: Any = {"type": "function", "name": "cancel_order", "parameters": SCHEMA}
FLAT_FORCED: Any = {"type": "function", "name": "cancel_order"}


class Order(BaseModel):
    """What the answer is to look like."""

    order: Literal["first", "second"]


def probes_of(provider: str) -> dict[str, Probe]:
    """The probes that are the same for both providers."""

    def ask(server: Server, **fields: Any) -> Any:
        base = server.v1 if provider == "openai" else server.url
        told = {"messages": MESSAGES, "max_tokens": 48, "num_retries": 0, "timeout": 80}
        told |= {"api_base": base, "api_key": server.key, **fields}
        told["model"] = f"{provider}/{told.get('model', server.model)}"
        return litellm.completion(**told)

    def chat(server: Server) -> None:
        check(ask(server).choices[0].message.content, "no text")

    def stream(server: Server) -> None:
        pieces = [c.choices[0].delta.content for c in ask(server, stream=True) if c.choices]
        check(len([p for p in pieces if p]) > 3, f"{len(pieces)} pieces")

    def tools(server: Server) -> None:
        call = ask(server, tools=[TOOL], tool_choice=FORCED).choices[0].message.tool_calls[0]
        check_call(call.function.name, call.function.arguments)

    def tools_streamed(server: Server) -> None:
        chunks = list(ask(server, tools=[TOOL], tool_choice=FORCED, stream=True))
        whole: Any = litellm.stream_chunk_builder(chunks, messages=MESSAGES)
        call = whole.choices[0].message.tool_calls[0]
        check_call(call.function.name, call.function.arguments)

    def tool_loop(server: Server) -> None:
        message = ask(server, tools=[TOOL], tool_choice=FORCED).choices[0].message
        result = {"role": "tool", "tool_call_id": message.tool_calls[0].id, "content": "done"}
        turns = [*MESSAGES, message, result]
        second = ask(server, messages=turns, tools=[TOOL], tool_choice="none")
        check(second.choices[0].message.content, "no text after the tool's result")

    def structured(server: Server) -> None:
        answer = ask(server, response_format=Order).choices[0].message.content
        check(Order.model_validate_json(answer).order in ORDERS, answer)

    def usage(server: Server) -> None:
        chunks = list(ask(server, stream=True, stream_options={"include_usage": True}))
        check(chunks[-1].usage.completion_tokens > 0, "no counts in the stream")
        check(ask(server).usage.prompt_tokens > 0, "no counts")

    def cancel(server: Server) -> None:
        with abandoned(server):
            more: Any = {"extra_body": {"ignore_eos": True}}
            if provider == "anthropic":  # it would send the word extra_body itself
                more = {"ignore_eos": True}
            told = ask(server, stream=True, max_tokens=LONG, **more)
            next(told)
            next(told)
            # LiteLLM's stream has no close of its own; the client's stream lies in it.
            inner = told.completion_stream
            close = getattr(inner, "close", None) or getattr(inner, "aclose", None)
            response = getattr(inner, "http_response", None)
            if close is None and response is None:
                raise NotApplicable("its stream cannot be closed")
            (close or response.close)()

    def errors(server: Server) -> None:
        expect(litellm.AuthenticationError, lambda: ask(server, api_key="weir_wrong"))
        expect(litellm.NotFoundError, lambda: ask(server, model="no-such-model"))
        expect(litellm.BadRequestError, lambda: ask(server, temperature=99))

    return {
        "chat": chat,
        "stream": stream,
        "tools": tools,
        "tools streamed": tools_streamed,
        "tool loop": tool_loop,
        "json": structured,
        "usage": usage,
        "cancel": cancel,
        "errors": errors,
    }


def completion(server: Server, **fields: Any) -> Any:
    """One chat answer with the provider ``openai/``."""
    told = {"model": f"openai/{server.model}", "messages": MESSAGES, "max_tokens": 16, **fields}
    return litellm.completion(api_base=server.v1, api_key=server.key, num_retries=0, **told)


def logprobs(server: Server) -> None:
    answer = completion(server, logprobs=True, top_logprobs=2)
    check(answer.choices[0].logprobs.content, "no logprobs")


def several(server: Server) -> None:
    check(len(completion(server, n=2).choices) == 2, "two choices")


def none(_: Server) -> None:
    raise NotApplicable("the API has no such field")


def respond(server: Server, **fields: Any) -> Any:
    """One response with the provider ``openai/``."""
    told = {"model": server.model, "input": QUESTION, "max_output_tokens": 48, **fields}
    told["model"] = f"openai/{told['model']}"
    return litellm.responses(**{"api_base": server.v1, "api_key": server.key, **told})


def called(response: Any) -> Any:
    """The function call in a response."""
    return next(item for item in response.output if item.type == "function_call")


def responses_chat(server: Server) -> None:
    check(respond(server).output[-1].content[0].text, "no text")


def responses_stream(server: Server) -> None:
    kinds = [str(getattr(e.type, "value", e.type)) for e in respond(server, stream=True)]
    check(kinds[-1] == "response.completed" or kinds[-1] == "response.incomplete", kinds[-3:])
    check(kinds.count("response.output_text.delta") > 3, kinds)


def responses_tools(server: Server) -> None:
    call = called(respond(server, tools=[FLAT], tool_choice=FLAT_FORCED))
    check_call(call.name, call.arguments)


def responses_tools_streamed(server: Server) -> None:
    events = list(respond(server, tools=[FLAT], tool_choice=FLAT_FORCED, stream=True))
    call = called(events[-1].response)
    check_call(call.name, call.arguments)


def responses_tool_loop(server: Server) -> None:
    first = respond(server, tools=[FLAT], tool_choice=FLAT_FORCED)
    result = {"type": "function_call_output", "call_id": called(first).call_id, "output": "done"}
    turns = [{"role": "user", "content": QUESTION}, *first.output, result]
    second = respond(server, input=turns, tools=[FLAT], tool_choice="none")
    check(second.output[-1].content[0].text, "no text after the tool's result")


def responses_json(server: Server) -> None:
    answer = respond(server, text_format=Order).output[-1].content[0].text
    check(Order.model_validate_json(answer).order in ORDERS, answer)


def responses_logprobs(server: Server) -> None:
    include = ["message.output_text.logprobs"]
    answer = respond(server, top_logprobs=2, include=include)
    check(answer.output[-1].content[0].logprobs, "no logprobs")


def responses_usage(server: Server) -> None:
    events = list(respond(server, stream=True))
    check(events[-1].response.usage.output_tokens > 0, "no counts in the stream")


async def responses_cancel(server: Server) -> None:
    told: Any = {"model": f"openai/{server.model}", "input": QUESTION, "stream": True}
    told |= {"max_output_tokens": LONG, "extra_body": {"ignore_eos": True}}

    async def read() -> None:
        stream = await litellm.aresponses(api_base=server.v1, api_key=server.key, **told)
        async for _ in stream:
            pass

    with abandoned(server):
        reading = asyncio.create_task(read())
        await asyncio.sleep(0.7)
        reading.cancel()
        await asyncio.gather(reading, return_exceptions=True)


def responses_errors(server: Server) -> None:
    expect(litellm.AuthenticationError, lambda: respond(server, api_key="weir_wrong"))
    expect(litellm.NotFoundError, lambda: respond(server, model="no-such-model"))
    expect(litellm.BadRequestError, lambda: respond(server, temperature=99))


def _named(client: str, probes: dict[str, Probe]) -> dict[str, Probe]:
    return {f"{client}/{name}": probe for name, probe in probes.items()}


PROBES = {
    **_named("litellm-openai", probes_of("openai")),
    "litellm-openai/logprobs": logprobs,
    "litellm-openai/n": several,
    **_named("litellm-anthropic", probes_of("anthropic")),
    "litellm-anthropic/logprobs": none,
    "litellm-anthropic/n": none,
    "litellm-responses/chat": responses_chat,
    "litellm-responses/stream": responses_stream,
    "litellm-responses/tools": responses_tools,
    "litellm-responses/tools streamed": responses_tools_streamed,
    "litellm-responses/tool loop": responses_tool_loop,
    "litellm-responses/json": responses_json,
    "litellm-responses/logprobs": responses_logprobs,
    "litellm-responses/n": none,
    "litellm-responses/usage": responses_usage,
    "litellm-responses/cancel": responses_cancel,
    "litellm-responses/errors": responses_errors,
}

if __name__ == "__main__":
    harness.run(PROBES)
