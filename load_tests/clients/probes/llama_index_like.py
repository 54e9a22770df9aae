"""LlamaIndex's OpenAILike, its class for servers that speak OpenAI's API."""

import asyncio
from typing import Any, Literal

import harness
import openai
from harness import (
    LONG,
    ORDERS,
    QUESTION,
    NotApplicable,
    Server,
    abandoned,
    check,
    check_call,
    expect,
)
from llama_index.core.llms import ChatMessage
from llama_index.core.tools import FunctionTool
from llama_index.llms.openai_like import OpenAILike
from pydantic import BaseModel

ASKED = [ChatMessage(role="user", content=QUESTION)]


class Order(BaseModel):
    """What the answer is to look like."""

    order: Literal["first", "second"]


def cancel_order(order: Literal["first", "second"]) -> str:
    """Cancel an order."""
    return "done"


TOOL = FunctionTool.from_defaults(fn=cancel_order)


def model(server: Server, **more: Any) -> OpenAILike:
    """The model as LlamaIndex's documentation makes it."""
    told: dict[str, Any] = {"model": server.model, "max_tokens": 48, "api_key": server.key}
    told |= {"is_chat_model": True, "is_function_calling_model": True, "context_window": 2048}
    told |= {"max_retries": 0, "timeout": 80.0, "should_use_structured_outputs": True}
    return OpenAILike(api_base=server.v1, **{**told, **more})


def chat(server: Server) -> None:
    check(model(server).chat(ASKED).message.content, "no text")
    check(model(server, is_chat_model=False).complete("Hello").text is not None, "no completion")


def stream(server: Server) -> None:
    pieces = [chunk.delta for chunk in model(server).stream_chat(ASKED)]
    check(len([p for p in pieces if p]) > 3, f"{len(pieces)} pieces")


def forced(server: Server) -> Any:
    """An answer that must call the tool."""
    told: dict[str, Any] = {"tool_choice": "cancel_order", "strict": True}
    return model(server).chat_with_tools([TOOL], user_msg=QUESTION, **told)


def tools(server: Server) -> None:
    call = model(server).get_tool_calls_from_response(forced(server))[0]
    check_call(call.tool_name, call.tool_kwargs)


def tools_streamed(server: Server) -> None:
    llm = model(server)
    told: dict[str, Any] = {"tool_choice": "cancel_order"}
    last = list(llm.stream_chat_with_tools([TOOL], user_msg=QUESTION, **told))[-1]
    call = llm.get_tool_calls_from_response(last)[0]
    check_call(call.tool_name, call.tool_kwargs)


def tool_loop(server: Server) -> None:
    first = forced(server)
    call = model(server).get_tool_calls_from_response(first)[0]
    extra = {"tool_call_id": call.tool_id}
    result = ChatMessage(role="tool", content="done", additional_kwargs=extra)
    second = model(server).chat([*ASKED, first.message, result])
    check(second.message.content, "no text after the tool's result")


def structured(server: Server) -> None:
    answer: Any = model(server).as_structured_llm(Order).chat(ASKED).raw
    check(answer.order in ORDERS, answer)


def logprobs(server: Server) -> None:
    answer = model(server, logprobs=True, top_logprobs=2).chat(ASKED)
    check(answer.logprobs, "no logprobs")


def several(_: Server) -> None:
    raise NotApplicable("LlamaIndex reads one choice only")


def usage(server: Server) -> None:
    raw: Any = model(server).chat(ASKED).raw
    check(raw.usage.completion_tokens > 0, "no counts")


async def cancel(server: Server) -> None:
    more = {"extra_body": {"ignore_eos": True}}
    llm = model(server, max_tokens=LONG, additional_kwargs=more)

    async def read() -> None:
        async for _ in await llm.astream_chat(ASKED):
            pass

    with abandoned(server):
        reading = asyncio.create_task(read())
        await asyncio.sleep(0.7)
        reading.cancel()
        await asyncio.gather(reading, return_exceptions=True)


def errors(server: Server) -> None:
    expect(openai.AuthenticationError, lambda: model(server, api_key="weir_wrong").chat(ASKED))
    expect(openai.NotFoundError, lambda: model(server, model="no-such-model").chat(ASKED))
    expect(openai.BadRequestError, lambda: model(server, max_tokens=10**6).chat(ASKED))


PROBES = {
    "llama-index/chat": chat,
    "llama-index/stream": stream,
    "llama-index/tools": tools,
    "llama-index/tools streamed": tools_streamed,
    "llama-index/tool loop": tool_loop,
    "llama-index/json": structured,
    "llama-index/logprobs": logprobs,
    "llama-index/n": several,
    "llama-index/usage": usage,
    "llama-index/cancel": cancel,
    "llama-index/errors": errors,
}

if __name__ == "__main__":
    harness.run(PROBES)
