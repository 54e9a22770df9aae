"""Every kind of request as lines of a batch: the right answers, and a bill that equals the engine's
own counters."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import openai
import pytest

from deployments.gateway.dialects import DIALECTS
from deployments.gateway.prompts import PromptEncoder
from deployments.testing.judging import owed, right_answers
from deployments.testing.kinds import KINDS, Kind, agrees
from deployments.testing.over_sockets import socket_cluster
from tests.contract.conftest import contract_settings

NUMBERS = (1, 2)
LINES = [kind for kind in KINDS if kind.path in DIALECTS.batchable and not kind.background]


@pytest.mark.parametrize("kind", LINES, ids=lambda kind: kind.name)
async def test_the_answers_are_right_and_the_bill_too(
    kind: Kind, encoder: PromptEncoder, tmp_path: Path
) -> None:
    lines = [
        {
            "custom_id": str(number),
            "method": "POST",
            "url": kind.path,
            "body": {"model": "m", **kind.body(number)},
        }
        for number in NUMBERS
    ]
    content = b"\n".join(json.dumps(line).encode() for line in lines)
    async with socket_cluster(contract_settings({}), encoder, tmp_path) as cluster:
        cluster.tasks = kind.tasks
        await cluster.add("a")
        async with openai.AsyncOpenAI(
            base_url=f"{cluster.url}/v1", api_key="one", max_retries=0
        ) as client:
            file = await client.files.create(file=("x.jsonl", content), purpose="batch")
            batch = await client.batches.create(
                input_file_id=file.id,
                endpoint=kind.path,  # type: ignore[arg-type]
                completion_window="24h",
            )
            async with asyncio.timeout(30):
                while batch.status not in ("completed", "failed"):
                    await asyncio.sleep(0.02)
                    batch = await client.batches.retrieve(batch.id)
            assert batch.status == "completed", batch.errors
            assert batch.output_file_id is not None, batch
            text = (await client.files.content(batch.output_file_id)).text
        told = {line["custom_id"]: line["response"] for line in map(json.loads, text.splitlines())}
        for number in NUMBERS:
            response = told[str(number)]
            assert response["request_id"] == f"{batch.id}-{number}"
            answer = kind.read(json.dumps(response["body"]).encode(), False)
            right = right_answers(cluster, kind, f"{batch.id}-{number}", number)
            assert all(map(agrees, answer.said, right)), (answer.said, right)
            assert len(answer.said) == len(right)
        cluster.asked = len(NUMBERS)
        await cluster.idle()
        if kind.name == "image":
            return  # what is owed is told apart by prompts, which only the replica knows here
        due = owed(cluster)
        assert cluster.bill("one") == due.bill(cluster)
        assert batch.usage is not None
        assert batch.usage.input_tokens == due.prompt_tokens
        assert batch.usage.output_tokens == due.output_tokens
