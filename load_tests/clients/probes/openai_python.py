"""openai, the official client for Python: chat, completions and Responses."""

from __future__ import annotations

import typing

import harness
import openai
from harness import (
    LONG,
    MESSAGES,
    ORDERS,
    QUESTION,
    SCHEMA,
    NotApplicable,
    Server,
    abandoned,
    check,
    check_call,
    expect,
)
from pydantic import BaseModel

TOOL: typing.Any = {
    "type": "function",
    "function": {"name": "cancel_order", "parameters": SCHEMA, "strict": True},
}
FORCED: typing.Any = {"type": "function", "function": {"name": "cancel_order"}}
FLAT: typing.Any = {
    "type": "function",
    "name": "cancel_order",
    "parameters": SCHEMA,
    "strict": True,
}
FLAT_FORCED: typing.Any = {"type": "function", "name": "cancel_order"}


class Order(BaseModel):
    """What the answer is to look like."""

    order: typing.Literal["first", "second"]


def client(server: Server, key: str | None = None) -> openai.OpenAI:
    """The client as its documentation makes it."""
    return openai.OpenAI(base_url=server.v1, api_key=key or server.key, max_retries=0, timeout=80)


def chat(server: Server, **fields: typing.Any) -> typing.Any:
    """One chat answer."""
    told = {"model": server.model, "messages": MESSAGES, "max_tokens": 32, **fields}
    return client(server).chat.completions.create(**told)


def chat_whole(server: Server) -> None:
    check(chat(server).choices[0].message.content, "no text")


def chat_stream(server: Server) -> None:
    pieces = [c.choices[0].delta.content for c in chat(server, stream=True) if c.choices]
    check(len([p for p in pieces if p]) > 3, f"{len(pieces)} pieces")
    with client(server).chat.completions.stream(
        model=server.model, messages=MESSAGES, max_tokens=32
    ) as stream:
        kinds = [event.type for event in stream]
        check(stream.get_final_completion().choices[0].message.content, "no text at the end")
    check("content.done" in kinds, kinds)


def chat_tools(server: Server) -> None:
    message = chat(server, tools=[TOOL], tool_choice=FORCED).choices[0].message
    check_call(message.tool_calls[0].function.name, message.tool_calls[0].function.arguments)


def chat_tools_streamed(server: Server) -> None:
    with client(server).chat.completions.stream(
        model=server.model, messages=MESSAGES, max_tokens=48, tools=[TOOL], tool_choice=FORCED
    ) as stream:
        kinds = [event.type for event in stream]
        message = stream.get_final_completion().choices[0].message
    check("tool_calls.function.arguments.delta" in kinds, kinds)
    check_call(message.tool_calls[0].function.name, message.tool_calls[0].function.arguments)


def chat_tool_loop(server: Server) -> None:
    message = chat(server, tools=[TOOL], tool_choice=FORCED).choices[0].message
    result = {"role": "tool", "tool_call_id": message.tool_calls[0].id, "content": "done"}
    second = chat(server, messages=[*MESSAGES, message, result], tools=[TOOL], tool_choice="none")
    check(second.choices[0].message.content, "no text after the tool's result")


def chat_json(server: Server) -> None:
    fields: typing.Any = {"model": server.model, "messages": MESSAGES, "max_tokens": 48}
    parsed = client(server).chat.completions.parse(response_format=Order, **fields)
    check(parsed.choices[0].message.parsed.order in ORDERS, parsed)
    with client(server).chat.completions.stream(response_format=Order, **fields) as stream:
        final = stream.get_final_completion()
    check(final.choices[0].message.parsed.order in ORDERS, final)


def chat_logprobs(server: Server) -> None:
    answer = chat(server, logprobs=True, top_logprobs=3)
    tokens = answer.choices[0].logprobs.content
    check(len(tokens) == answer.usage.completion_tokens, "as many as tokens")
    check(len(tokens[0].top_logprobs) == 3, "three alternatives")


def chat_n(server: Server) -> None:
    check([c.index for c in chat(server, n=3).choices] == [0, 1, 2], "three choices")


def chat_usage(server: Server) -> None:
    whole = chat(server, temperature=0).usage
    options = {"include_usage": True}
    chunks = list(chat(server, temperature=0, stream=True, stream_options=options))
    check(chunks[-1].usage.completion_tokens == whole.completion_tokens, "counts differ")
    check(chunks[-1].usage.prompt_tokens == whole.prompt_tokens, "counts differ")


def chat_cancel(server: Server) -> None:
    with abandoned(server):
        more = {"ignore_eos": True}
        stream = chat(server, stream=True, max_tokens=LONG, extra_body=more)
        next(iter(stream))
        stream.close()


def chat_errors(server: Server) -> None:
    errors(server, lambda c, **f: c.chat.completions.create(messages=MESSAGES, **f))


def errors(server: Server, call: typing.Callable[..., typing.Any]) -> None:
    """A wrong key, an unknown model and a wrong value, each as the client's own error."""
    wrong = client(server, "weir_wrong")
    expect(openai.AuthenticationError, lambda: call(wrong, model=server.model))
    expect(openai.NotFoundError, lambda: call(client(server), model="no-such-model"))
    body = {"temperature": 99}
    bad = expect(openai.BadRequestError, lambda: call(client(server), model=server.model, **body))
    check(getattr(bad, "param", None) == "temperature", f"param {getattr(bad, 'param', None)!r}")


def completions(server: Server, **fields: typing.Any) -> typing.Any:
    """One text completion."""
    told = {"model": server.model, "prompt": "Hello", "max_tokens": 24, **fields}
    return client(server).completions.create(**told)


def completions_whole(server: Server) -> None:
    check(len(completions(server, prompt=["Hello", "Hi"]).choices) == 2, "two prompts")


def completions_stream(server: Server) -> None:
    pieces = list(completions(server, stream=True, extra_body={"ignore_eos": True}))
    check(len(pieces) > 3, f"{len(pieces)} pieces")


def completions_logprobs(server: Server) -> None:
    answer = completions(server, logprobs=2)
    found = answer.choices[0].logprobs
    check(len(found.token_logprobs) == answer.usage.completion_tokens, "as many as tokens")


def completions_n(server: Server) -> None:
    check(len(completions(server, n=2).choices) == 2, "two choices")


def completions_usage(server: Server) -> None:
    chunks = list(completions(server, stream=True, stream_options={"include_usage": True}))
    check(chunks[-1].usage.prompt_tokens > 0, "no counts")
    check(completions(server).usage.total_tokens > 0, "no counts")


def completions_cancel(server: Server) -> None:
    with abandoned(server):
        more = {"ignore_eos": True}
        stream = completions(server, stream=True, max_tokens=LONG, extra_body=more)
        next(iter(stream))
        stream.close()


def completions_errors(server: Server) -> None:
    errors(server, lambda c, **f: c.completions.create(prompt="Hello", **f))


def respond(server: Server, **fields: typing.Any) -> typing.Any:
    """One response."""
    told = {"model": server.model, "input": QUESTION, "max_output_tokens": 48, **fields}
    return client(server).responses.create(**told)


def responses_whole(server: Server) -> None:
    check(respond(server).output_text, "no text")


def responses_stream(server: Server) -> None:
    with client(server).responses.stream(
        model=server.model, input=QUESTION, max_output_tokens=32
    ) as stream:
        kinds = [event.type for event in stream]
        check(stream.get_final_response().output_text, "no text at the end")
    check(kinds.count("response.output_text.delta") > 3, kinds)


def responses_tools(server: Server) -> None:
    call = called(respond(server, tools=[FLAT], tool_choice=FLAT_FORCED))
    check_call(call.name, call.arguments)


def called(response: typing.Any) -> typing.Any:
    """The function call in a response."""
    return next(item for item in response.output if item.type == "function_call")


def responses_tools_streamed(server: Server) -> None:
    events = list(respond(server, tools=[FLAT], tool_choice=FLAT_FORCED, stream=True))
    deltas = [e.delta for e in events if e.type == "response.function_call_arguments.delta"]
    call = called(events[-1].response)
    check("".join(deltas) == call.arguments, "the pieces are not the arguments")
    check_call(call.name, call.arguments)


def responses_tool_loop(server: Server) -> None:
    first = respond(server, tools=[FLAT], tool_choice=FLAT_FORCED)
    result = {"type": "function_call_output", "call_id": called(first).call_id, "output": "done"}
    turns = [{"role": "user", "content": QUESTION}, *first.output, result]
    fields: typing.Any = {"tools": [FLAT], "tool_choice": "none"}
    check(respond(server, input=turns, **fields).output_text, "no text by items")
    by_id = respond(server, input=[result], previous_response_id=first.id, **fields)
    check(by_id.output_text, "no text by previous_response_id")


def responses_json(server: Server) -> None:
    parsed = client(server).responses.parse(
        model=server.model, input=QUESTION, max_output_tokens=48, text_format=Order
    )
    check(parsed.output_parsed.order in ORDERS, parsed)


def responses_logprobs(server: Server) -> None:
    include = ["message.output_text.logprobs"]
    answer = respond(server, top_logprobs=2, include=include)
    check(answer.output[-1].content[0].logprobs[0].top_logprobs, "no alternatives")


def responses_n(_: Server) -> None:
    raise NotApplicable("Responses has no n")


def responses_usage(server: Server) -> None:
    events = list(respond(server, stream=True, temperature=0))
    whole = respond(server, temperature=0).usage
    check(events[-1].response.usage.output_tokens == whole.output_tokens, "counts differ")


def responses_cancel(server: Server) -> None:
    with abandoned(server):
        more = {"ignore_eos": True}
        stream = respond(server, stream=True, max_output_tokens=LONG, extra_body=more)
        next(iter(stream))
        stream.close()


def responses_errors(server: Server) -> None:
    errors(server, lambda c, **f: c.responses.create(input=QUESTION, **f))


def no_tools(_: Server) -> None:
    raise NotApplicable("text completions have no tools")


def no_json(_: Server) -> None:
    raise NotApplicable("the client has no helper for completions")


PROBES = {
    "openai-python-chat/chat": chat_whole,
    "openai-python-chat/stream": chat_stream,
    "openai-python-chat/tools": chat_tools,
    "openai-python-chat/tools streamed": chat_tools_streamed,
    "openai-python-chat/tool loop": chat_tool_loop,
    "openai-python-chat/json": chat_json,
    "openai-python-chat/logprobs": chat_logprobs,
    "openai-python-chat/n": chat_n,
    "openai-python-chat/usage": chat_usage,
    "openai-python-chat/cancel": chat_cancel,
    "openai-python-chat/errors": chat_errors,
    "openai-python-completions/chat": completions_whole,
    "openai-python-completions/stream": completions_stream,
    "openai-python-completions/tools": no_tools,
    "openai-python-completions/tools streamed": no_tools,
    "openai-python-completions/tool loop": no_tools,
    "openai-python-completions/json": no_json,
    "openai-python-completions/logprobs": completions_logprobs,
    "openai-python-completions/n": completions_n,
    "openai-python-completions/usage": completions_usage,
    "openai-python-completions/cancel": completions_cancel,
    "openai-python-completions/errors": completions_errors,
    "openai-python-responses/chat": responses_whole,
    "openai-python-responses/stream": responses_stream,
    "openai-python-responses/tools": responses_tools,
    "openai-python-responses/tools streamed": responses_tools_streamed,
    "openai-python-responses/tool loop": responses_tool_loop,
    "openai-python-responses/json": responses_json,
    "openai-python-responses/logprobs": responses_logprobs,
    "openai-python-responses/n": responses_n,
    "openai-python-responses/usage": responses_usage,
    "openai-python-responses/cancel": responses_cancel,
    "openai-python-responses/errors": responses_errors,
}

if __name__ == "__main__":
    harness.run(PROBES)
