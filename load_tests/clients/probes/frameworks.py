"""instructor, pydantic-ai and openai-agents: frameworks that build on the official clients."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any, Literal

import harness
import instructor
import openai
from agents import (
    Agent,
    ModelSettings,
    OpenAIChatCompletionsModel,
    OpenAIResponsesModel,
    Runner,
    function_tool,
    set_tracing_disabled,
)
from anthropic import Anthropic, AsyncAnthropic
from harness import (
    LONG,
    MESSAGES,
    ORDERS,
    QUESTION,
    NotApplicable,
    Probe,
    Server,
    abandoned,
    check,
    first_line,
)
from instructor.core.exceptions import IncompleteOutputException, InstructorRetryException
from pydantic import BaseModel
from pydantic_ai import Agent as PydanticAgent
from pydantic_ai import NativeOutput, ToolOutput
from pydantic_ai.exceptions import ModelHTTPError
from pydantic_ai.models.anthropic import AnthropicModel
from pydantic_ai.models.openai import OpenAIChatModel
from pydantic_ai.models.openai import OpenAIResponsesModel as PydanticResponses
from pydantic_ai.providers.anthropic import AnthropicProvider
from pydantic_ai.providers.openai import OpenAIProvider


class Order(BaseModel):
    """What the answer is to look like."""

    order: Literal["first", "second"]


def async_openai(server: Server) -> openai.AsyncOpenAI:
    """The client that the frameworks are given."""
    return openai.AsyncOpenAI(base_url=server.v1, api_key=server.key, max_retries=0, timeout=80)


# instructor


def instructed(server: Server, mode: instructor.Mode) -> Any:
    """A client in one of instructor's modes."""
    if mode.name.startswith("ANTHROPIC"):
        plain = Anthropic(base_url=server.url, api_key=server.key, max_retries=0, timeout=80)
        return instructor.from_anthropic(plain, mode=mode)
    told = openai.OpenAI(base_url=server.v1, api_key=server.key, max_retries=0, timeout=80)
    return instructor.from_openai(told, mode=mode)


def instructor_mode(name: str, grammar: bool = True) -> Probe:
    """An answer in this mode. Without a grammar behind it a wrong one is the model's fault."""

    def probe(server: Server) -> None:
        client = instructed(server, instructor.Mode[name])
        told: dict[str, Any] = {"model": server.model, "messages": MESSAGES, "max_retries": 1}
        if not name.startswith("RESPONSES"):
            told["max_tokens"] = 64
        try:
            answer = client.create(response_model=Order, **told)
        except (IncompleteOutputException, InstructorRetryException) as error:
            text = str(error)
            # Its retries wrap what the server said; only a refusal is the server's doing.
            if grammar or "Error code:" in text:
                raise
            blame_model(error)
        else:
            check(answer.order in ORDERS, answer)

    return probe


def blame_model(error: Exception) -> None:
    """The mode trusts the model to write JSON by itself, and this one does not."""
    raise harness.ModelsFaultError(f"no grammar in this mode: {first_line(error)}"[:160])


def instructor_partial(server: Server) -> None:
    client = instructed(server, instructor.Mode.JSON_SCHEMA)
    told: dict[str, Any] = {"model": server.model, "messages": MESSAGES, "max_tokens": 64}
    parts = list(client.create_partial(response_model=Order, **told))
    check(parts and parts[-1].order in ORDERS, parts[-1:])


def instructor_usage(server: Server) -> None:
    client = instructed(server, instructor.Mode.JSON_SCHEMA)
    told: dict[str, Any] = {"model": server.model, "messages": MESSAGES, "max_tokens": 64}
    _, completion = client.create_with_completion(response_model=Order, **told)
    check(completion.usage.completion_tokens > 0, "no counts")


def instructor_errors(server: Server) -> None:
    client = instructed(server, instructor.Mode.JSON_SCHEMA)
    told: dict[str, Any] = {"messages": MESSAGES, "max_tokens": 64, "max_retries": 1}
    try:
        client.create(response_model=Order, model="no-such-model", **told)
    except (openai.NotFoundError, InstructorRetryException) as error:
        check("no-such-model" in str(error), first_line(error))
    else:
        raise AssertionError("an unknown model went through")


def only_objects(_: Server) -> None:
    raise NotApplicable("instructor makes objects only, one at a time, which end with their schema")


# pydantic-ai


def pydantic_model(server: Server, api: str) -> Any:
    """The model of one of the three APIs."""
    if api == "anthropic":
        plain = AsyncAnthropic(base_url=server.url, api_key=server.key, max_retries=0, timeout=80)
        return AnthropicModel(server.model, provider=AnthropicProvider(anthropic_client=plain))
    provider = OpenAIProvider(openai_client=async_openai(server))
    kind = OpenAIChatModel if api == "chat" else PydanticResponses
    return kind(server.model, provider=provider)


def pydantic_probes(api: str) -> dict[str, Probe]:
    """pydantic-ai with one API."""

    def agent(server: Server, **more: Any) -> Any:
        settings = {"max_tokens": 64, **more.pop("settings", {})}
        return PydanticAgent(pydantic_model(server, api), model_settings=settings, **more)

    async def chat(server: Server) -> None:
        check((await agent(server).run(QUESTION)).output, "no text")

    async def stream(server: Server) -> None:
        async with agent(server).run_stream(QUESTION) as result:
            pieces = [p async for p in result.stream_text(delta=True, debounce_by=None)]
        check(len(pieces) > 3, f"{len(pieces)} pieces")

    async def tools(server: Server) -> None:
        # An output tool is forced by tool_choice, so that the grammar guarantees the call.
        answer = await agent(server, output_type=ToolOutput(Order, strict=True)).run(QUESTION)
        check(answer.output.order in ORDERS, answer.output)

    async def tools_streamed(server: Server) -> None:
        made = agent(server, output_type=ToolOutput(Order, strict=True))
        async with made.run_stream(QUESTION) as result:
            check((await result.get_output()).order in ORDERS, "no order")

    async def tool_loop(server: Server) -> None:
        # The second run gets the first one's call and its result as history.
        first = await agent(server, output_type=ToolOutput(Order, strict=True)).run(QUESTION)
        second = await agent(server).run("And now?", message_history=first.all_messages())
        check(second.output, "no text after the tool's result")

    async def native(server: Server) -> None:
        if api == "anthropic":
            raise NotApplicable("pydantic-ai asks it only of models that it knows by their names")
        answer = await agent(server, output_type=NativeOutput(Order)).run(QUESTION)
        check(answer.output.order in ORDERS, answer.output)

    async def usage(server: Server) -> None:
        result = await agent(server).run(QUESTION)
        told = result.usage() if callable(result.usage) else result.usage
        check(told.output_tokens > 0 and told.input_tokens > 0, told)

    async def cancel(server: Server) -> None:
        settings = {"max_tokens": LONG, "extra_body": {"ignore_eos": True}}
        await leave(server, settings)

    async def leave(server: Server, settings: dict[str, Any]) -> None:
        with abandoned(server):
            try:
                async with asyncio.timeout(1.0):
                    await agent(server, settings=settings).run(QUESTION)
            except TimeoutError:
                return
            raise AssertionError(f"{LONG} tokens in a second?")

    async def errors(server: Server) -> None:
        try:
            await agent(server, settings={"temperature": 99}).run(QUESTION)
        except ModelHTTPError as error:
            check(error.status_code == 400, first_line(error))
        else:
            raise AssertionError("temperature 99 went through")

    return {
        "chat": chat,
        "stream": stream,
        "tools": tools,
        "tools streamed": tools_streamed,
        "tool loop": tool_loop,
        "json": native,
        "usage": usage,
        "cancel": cancel,
        "errors": errors,
    }


# openai-agents


@function_tool
def cancel_order(order: Literal["first", "second"]) -> str:
    """Cancel an order."""
    return "done"


def agents_probes(responses: bool) -> dict[str, Probe]:
    """openai-agents with its default model (Responses), or with the one for chat."""

    def agent(server: Server, **more: Any) -> Agent[Any]:
        set_tracing_disabled(True)
        kind: Any = OpenAIResponsesModel if responses else OpenAIChatCompletionsModel
        model = kind(model=server.model, openai_client=async_openai(server))
        settings = ModelSettings(max_tokens=64, **more.pop("settings", {}))
        return Agent(name="desk", model=model, model_settings=settings, **more)

    async def chat(server: Server) -> None:
        check((await Runner.run(agent(server), QUESTION)).final_output, "no text")

    async def stream(server: Server) -> None:
        result = Runner.run_streamed(agent(server), QUESTION)
        deltas = [
            event
            async for event in result.stream_events()
            if event.type == "raw_response_event"
            and event.data.type == "response.output_text.delta"
        ]
        check(len(deltas) > 3, f"{len(deltas)} pieces")

    def forced(server: Server) -> Agent[Any]:
        # After the forced call the agent's own default is "auto": the model answers in text.
        return agent(server, tools=[cancel_order], settings={"tool_choice": "cancel_order"})

    async def tools(server: Server) -> None:
        made = forced(server)
        made.tool_use_behavior = "stop_on_first_tool"
        check((await Runner.run(made, QUESTION)).final_output == "done", "the tool did not run")

    async def tools_streamed(server: Server) -> None:
        made = forced(server)
        made.tool_use_behavior = "stop_on_first_tool"
        result = Runner.run_streamed(made, QUESTION)
        async for _ in result.stream_events():
            pass
        check(result.final_output == "done", "the tool did not run")

    async def tool_loop(server: Server) -> None:
        result = await Runner.run(forced(server), QUESTION, max_turns=4)
        kinds = [item.type for item in result.new_items]
        check("tool_call_output_item" in kinds and result.final_output, kinds)

    async def output_type(server: Server) -> None:
        result = await Runner.run(agent(server, output_type=Order), QUESTION)
        check(result.final_output.order in ORDERS, result.final_output)

    async def usage(server: Server) -> None:
        result = await Runner.run(agent(server), QUESTION)
        check(result.context_wrapper.usage.output_tokens > 0, "no counts")

    async def cancel(server: Server) -> None:
        made = agent(server)
        made.model_settings.max_tokens = LONG
        made.model_settings.extra_body = {"ignore_eos": True}
        with abandoned(server):
            result = Runner.run_streamed(made, QUESTION)
            events: AsyncIterator[Any] = result.stream_events()
            await anext(events)
            await asyncio.sleep(0.5)
            result.cancel()
            async for _ in events:
                pass

    async def errors(server: Server) -> None:
        try:
            await Runner.run(agent(server, settings={"temperature": 99}), QUESTION)
        except openai.BadRequestError as error:
            check(error.param == "temperature", first_line(error))
        else:
            raise AssertionError("temperature 99 went through")

    return {
        "chat": chat,
        "stream": stream,
        "tools": tools,
        "tools streamed": tools_streamed,
        "tool loop": tool_loop,
        "json": output_type,
        "usage": usage,
        "cancel": cancel,
        "errors": errors,
    }


def no_field(_: Server) -> None:
    raise NotApplicable("the framework does not offer it")


def _named(client: str, probes: dict[str, Probe]) -> dict[str, Probe]:
    rest = dict.fromkeys(("logprobs", "n"), no_field)
    return {f"{client}/{name}": probe for name, probe in (probes | rest).items()}


PROBES = {
    "instructor/json": instructor_mode("JSON_SCHEMA"),
    "instructor/chat": only_objects,
    "instructor/stream": instructor_partial,
    "instructor/tools streamed": only_objects,
    "instructor/tool loop": only_objects,
    "instructor/logprobs": only_objects,
    "instructor/n": only_objects,
    "instructor/usage": instructor_usage,
    "instructor/cancel": only_objects,
    "instructor/errors": instructor_errors,
    "instructor/tools": instructor_mode("TOOLS_STRICT"),
    "instructor/mode TOOLS": instructor_mode("TOOLS"),
    "instructor/mode JSON": instructor_mode("JSON", grammar=False),
    "instructor/mode MD_JSON": instructor_mode("MD_JSON", grammar=False),
    "instructor/mode RESPONSES_TOOLS": instructor_mode("RESPONSES_TOOLS"),
    "instructor/mode ANTHROPIC_TOOLS": instructor_mode("ANTHROPIC_TOOLS"),
    "instructor/mode ANTHROPIC_JSON": instructor_mode("ANTHROPIC_JSON", grammar=False),
    **_named("pydantic-ai-chat", pydantic_probes("chat")),
    **_named("pydantic-ai-responses", pydantic_probes("responses")),
    **_named("pydantic-ai-anthropic", pydantic_probes("anthropic")),
    **_named("openai-agents", agents_probes(True)),
    **_named("openai-agents-chat", agents_probes(False)),
}

if __name__ == "__main__":
    harness.run(PROBES)
