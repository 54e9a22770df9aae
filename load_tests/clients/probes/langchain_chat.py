"""LangChain's ChatOpenAI (chat, and Responses by ``use_responses_api``) and ChatAnthropic."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal

import anthropic
import harness
import openai
from harness import (
    LONG,
    ORDERS,
    QUESTION,
    NotApplicable,
    Probe,
    Server,
    abandoned,
    check,
    check_call,
    expect,
)
from langchain_anthropic import ChatAnthropic
from langchain_core.messages import HumanMessage, ToolMessage
from langchain_core.tools import tool
from langchain_openai import ChatOpenAI
from pydantic import BaseModel

Make = Callable[..., Any]


class Order(BaseModel):
    """What the answer is to look like."""

    order: Literal["first", "second"]


@tool
def cancel_order(order: Literal["first", "second"]) -> str:
    """Cancel an order."""
    return "done"


def chat_openai(server: Server, **more: Any) -> ChatOpenAI:
    """The model as LangChain's documentation makes it."""
    told = {"max_tokens": 48, "max_retries": 0, "timeout": 80, "model": server.model, **more}
    # With a base URL of one's own LangChain asks for the counts of a stream only when told to.
    told = {"stream_usage": True, **told}
    return ChatOpenAI(**{"base_url": server.v1, "api_key": server.key, **told})


def responses_openai(server: Server, **more: Any) -> ChatOpenAI:
    """The same by way of Responses."""
    return chat_openai(server, use_responses_api=True, **more)


def chat_anthropic(server: Server, **more: Any) -> ChatAnthropic:
    """The model as LangChain's documentation makes it."""
    extra = more.pop("extra_body", None)
    if extra:
        more["model_kwargs"] = {"extra_body": extra}
    told = {"max_tokens": 48, "max_retries": 0, "timeout": 80, "model": server.model, **more}
    return ChatAnthropic(**{"base_url": server.url, "api_key": server.key, **told})


def bound(make: Make, server: Server) -> Any:
    """The model with a tool that it must call."""
    return make(server).bind_tools([cancel_order], tool_choice="cancel_order")


def probes_of(make: Make, kinds: Any) -> dict[str, Probe]:
    """The probes that are the same for all three. ``kinds``: the client's module, which has the
    kinds of its errors."""

    def chat(server: Server) -> None:
        check(make(server).invoke(QUESTION).text, "no text")

    def stream(server: Server) -> None:
        pieces = [chunk.text for chunk in make(server).stream(QUESTION)]
        check(len([p for p in pieces if p]) > 3, f"{len(pieces)} pieces")

    def tools(server: Server) -> None:
        call = bound(make, server).invoke(QUESTION).tool_calls[0]
        check_call(call["name"], call["args"])

    def tools_streamed(server: Server) -> None:
        whole: Any = None
        for chunk in bound(make, server).stream(QUESTION):
            whole = chunk if whole is None else whole + chunk
        check_call(whole.tool_calls[0]["name"], whole.tool_calls[0]["args"])

    def tool_loop(server: Server) -> None:
        first = bound(make, server).invoke(QUESTION)
        result = ToolMessage("done", tool_call_id=first.tool_calls[0]["id"])
        turns = [HumanMessage(QUESTION), first, result]
        again = make(server).bind_tools([cancel_order], tool_choice="none")
        if kinds is anthropic:
            again = make(server).bind_tools([cancel_order], tool_choice={"type": "none"})
        check(again.invoke(turns).text, "no text after the tool's result")

    def structured(server: Server) -> None:
        answer = make(server).with_structured_output(Order, method="json_schema").invoke(QUESTION)
        check(answer.order in ORDERS, answer)

    def usage(server: Server) -> None:
        whole: Any = None
        for chunk in make(server).stream(QUESTION):
            whole = chunk if whole is None else whole + chunk
        check(whole.usage_metadata["output_tokens"] > 0, whole.usage_metadata)
        check(make(server).invoke(QUESTION).usage_metadata["input_tokens"] > 0, "no counts")

    def cancel(server: Server) -> None:
        with abandoned(server):
            model = make(server, max_tokens=LONG, extra_body={"ignore_eos": True})
            stream = model.stream(QUESTION)
            next(stream)
            next(stream)
            stream.close()

    def errors(server: Server) -> None:
        wrong = make(server, api_key="weir_wrong")
        expect(kinds.AuthenticationError, lambda: wrong.invoke(QUESTION))
        expect(kinds.NotFoundError, lambda: make(server, model="no-such-model").invoke(QUESTION))
        too_long = make(server, max_tokens=10**6)
        expect(kinds.BadRequestError, lambda: too_long.invoke(QUESTION))

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


def logprobs(server: Server) -> None:
    answer = chat_openai(server, logprobs=True, top_logprobs=2).invoke(QUESTION)
    check(answer.response_metadata["logprobs"]["content"], "no logprobs")


def responses_logprobs(server: Server) -> None:
    raise NotApplicable("LangChain does not read the logprobs of Responses")


def several(server: Server) -> None:
    result = chat_openai(server, n=2).generate([[HumanMessage(QUESTION)]])
    check(len(result.generations[0]) == 2, "two choices")


def none(_: Server) -> None:
    raise NotApplicable("the API has no such field")


def _named(client: str, probes: dict[str, Probe]) -> dict[str, Probe]:
    return {f"{client}/{name}": probe for name, probe in probes.items()}


PROBES = {
    **_named("langchain-openai", probes_of(chat_openai, openai)),
    "langchain-openai/logprobs": logprobs,
    "langchain-openai/n": several,
    **_named("langchain-openai-responses", probes_of(responses_openai, openai)),
    "langchain-openai-responses/logprobs": responses_logprobs,
    "langchain-openai-responses/n": none,
    **_named("langchain-anthropic", probes_of(chat_anthropic, anthropic)),
    "langchain-anthropic/logprobs": none,
    "langchain-anthropic/n": none,
}

if __name__ == "__main__":
    harness.run(PROBES)
