"""Embeddings, rerank and score through the gateway and a real engine: a small BERT with random
weights, made here, whose answers must be those of Transformers."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

pytestmark = pytest.mark.engine

_SCRIPT = """
import asyncio, json, os, sys, tempfile
from pathlib import Path
import torch
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import (
    BertConfig, BertForSequenceClassification, BertModel, PreTrainedTokenizerFast
)
from vllm.engine.arg_utils import AsyncEngineArgs
from deployments.engine import EngineChild
from deployments.gateway.prompts import PromptEncoder
from deployments.pairs import SCORE, scores_pairs
from deployments.testing.world import KEY, http_world
from weir.settings import ModelSettings, Settings, TenantSettings
from weir.tenancy import hash_key

WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", *(f"w{i}" for i in range(60))]
QUERY, DOCUMENTS = "w0 w1 w2", ["w3 w4", "w0 w1 w2", "w5 w6 w7 w8 w9", "w1"]
LONG = " ".join(f"w{i % 60}" for i in range(100))

def build(folder, labels):
    tokenizer = Tokenizer(models.WordLevel({w: i for i, w in enumerate(WORDS)}, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer.post_processor = processors.BertProcessing(("[SEP]", 3), ("[CLS]", 2))
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token="[PAD]", unk_token="[UNK]", cls_token="[CLS]",
        sep_token="[SEP]", model_input_names=["input_ids", "token_type_ids", "attention_mask"],
    )
    fast.save_pretrained(folder)
    torch.manual_seed(7)
    config = BertConfig(
        vocab_size=len(WORDS), hidden_size=128, num_hidden_layers=2, num_attention_heads=2,
        intermediate_size=128, max_position_embeddings=48, initializer_range=0.3,
    )
    if labels:
        config.num_labels = labels
        model = BertForSequenceClassification(config).eval()
    else:
        model = BertModel(config).eval()
    model.save_pretrained(folder)
    return fast, model

def scores(fast, model, documents, **more):
    inputs = [fast(QUERY, document, return_tensors="pt", **more) for document in documents]
    with torch.no_grad():
        return [float(model(**each).logits[0, 0].sigmoid()) for each in inputs]

async def main(labels):
    folder = tempfile.mkdtemp()
    fast, model = build(folder, labels)
    config = AsyncEngineArgs(
        model=folder, runner="pooling", dtype="float32", max_model_len=48, max_num_seqs=8,
        kv_cache_memory_bytes=16 << 20, enforce_eager=True, distributed_executor_backend="uni",
    ).create_engine_config()
    child = EngineChild(config, lambda code: None)
    child.start()
    client, generator, _ = generator_of(config, child)
    tasks = list(await client.get_supported_tasks())
    if scores_pairs(client.model_config, tasks):
        tasks.append(SCORE)
    out = {"tasks": tasks}
    settings = Settings(
        models=(ModelSettings(name="m", source="x"),),
        tenants=(TenantSettings(id="t", key_sha256=(hash_key(KEY),)),),
    )
    async with http_world(settings, {"m": PromptEncoder(Path(folder))}) as world:
        await world.add_replica("r", generator, max_model_len=48, tasks=frozenset(tasks))
        async def post(name, path, **body):
            async with world.post(body, path) as response:
                out[name] = [response.status, await response.json()]
        rerank = {"query": QUERY, "documents": DOCUMENTS}
        await post("rerank", "/v1/rerank", **rerank)
        await post("top", "/v2/rerank", top_n=2, return_documents=False, **rerank)
        await post("scores", "/v1/score", text_1=QUERY, text_2=DOCUMENTS)
        await post("raw", "/v1/score", text_1=QUERY, text_2=DOCUMENTS, use_activation=False)
        await post("long", "/v1/score", text_1=QUERY, text_2=LONG)
        await post(
            "cut", "/v1/score", text_1=QUERY, text_2=LONG,
            truncate_prompt_tokens=-1,
        )
        await post("embed", "/v1/embeddings", input=[QUERY, *DOCUMENTS])
        await post("cut_embed", "/v1/embeddings", input=LONG, truncate_prompt_tokens=8)
        await post("same_embed", "/v1/embeddings", input=" ".join(LONG.split()[:6]))
        await post("chat", "/v1/chat/completions", messages=[{"role": "user", "content": "w1"}])
    if labels == 1:
        out["right"] = scores(fast, model, DOCUMENTS)
        out["right_cut"] = scores(fast, model, [LONG], truncation=True, max_length=48)
    print("RESULT" + json.dumps(out), flush=True)
    os._exit(0)

asyncio.run(main(LABELS))
"""


@pytest.fixture(scope="module")
def embedder(with_teacher: Callable[[str], dict[str, Any]]) -> dict[str, Any]:
    return with_teacher(_SCRIPT.replace("LABELS", "0"))


@pytest.fixture(scope="module")
def ranker(with_teacher: Callable[[str], dict[str, Any]]) -> dict[str, Any]:
    return with_teacher(_SCRIPT.replace("LABELS", "1"))


def _scores(found: Any) -> list[float]:
    status, told = found
    assert status == 200, told
    return [each["score"] for each in told["data"]]


def test_a_cross_encoder_scores_as_transformers_does(ranker: dict[str, Any]) -> None:
    assert {"classify", "score"} <= set(ranker["tasks"])
    assert _scores(ranker["scores"]) == pytest.approx(ranker["right"], abs=1e-3)
    assert max(ranker["right"]) - min(ranker["right"]) > 0.05
    assert any(not 0.0 <= score <= 1.0 for score in _scores(ranker["raw"]))
    status, told = ranker["long"]
    assert (status, told["error"]["code"]) == (400, "context_length_exceeded")
    assert _scores(ranker["cut"]) == pytest.approx(ranker["right_cut"], abs=1e-3)


def test_a_cross_encoder_ranks(ranker: dict[str, Any]) -> None:
    status, told = ranker["rerank"]
    assert status == 200, told
    order = sorted(range(4), key=lambda i: -ranker["right"][i])
    assert [each["index"] for each in told["results"]] == order
    assert all(0.0 <= each["relevance_score"] <= 1.0 for each in told["results"])
    assert told["usage"]["prompt_tokens"] == 4 * 6 + (2 + 3 + 5 + 1)
    _, top = ranker["top"]
    assert [each["index"] for each in top["results"]] == order[:2]
    assert "document" not in top["results"][0]
    for name in ("embed", "chat"):
        status, told = ranker[name]
        assert (status, told["error"]["code"]) == (400, "unsupported_operation")


def test_an_embedding_model_ranks_by_the_cosine(embedder: dict[str, Any]) -> None:
    assert "score" not in embedder["tasks"]
    _, told = embedder["embed"]
    query, *documents = [each["embedding"] for each in told["data"]]
    right = [sum(a * b for a, b in zip(query, each, strict=True)) for each in documents]
    assert _scores(embedder["scores"]) == pytest.approx(right, abs=1e-3)
    _, ranked = embedder["rerank"]
    assert ranked["results"][0]["index"] == 1
    assert ranked["results"][0]["relevance_score"] == pytest.approx(1.0, abs=1e-4)
    assert ranked["usage"]["prompt_tokens"] == told["usage"]["prompt_tokens"] == 5 * 2 + 14


def test_an_input_is_cut_to_its_first_tokens(embedder: dict[str, Any]) -> None:
    _, cut = embedder["cut_embed"]
    _, same = embedder["same_embed"]
    assert cut["usage"]["prompt_tokens"] == 8
    assert cut["data"][0]["embedding"] == pytest.approx(same["data"][0]["embedding"], abs=1e-5)
