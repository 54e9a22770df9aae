"""The tokenizer and its chat template, as trained from scratch on a few conversations."""

import itertools
import random

import pytest
from transformers import PreTrainedTokenizerFast

from fallback.training import tokenization
from fallback.training.batches import ROUND, batches, drill, encode
from weir import samples


@pytest.fixture(scope="module")
def tokenizer() -> PreTrainedTokenizerFast:
    return tokenization.wrap(tokenization.train_tokenizer(1, vocab_size=600, n_conversations=100))


def _render(tokenizer: PreTrainedTokenizerFast, messages: object, **options: object) -> str:
    return str(tokenizer.apply_chat_template(messages, tokenize=False, **options))


def test_training_the_tokenizer_is_deterministic() -> None:
    first, second = (tokenization.train_tokenizer(1, 600, 50).to_str() for _ in range(2))
    assert first == second


def test_digits_are_single_tokens_and_text_survives(tokenizer: PreTrainedTokenizerFast) -> None:
    text = "Order 48213, 4.90 EUR, née Žižka\n€ 30"
    ids = tokenizer.encode(text)
    assert tokenizer.decode(ids) == text
    pieces = [tokenizer.decode([token]) for token in ids]
    assert all(sum(char.isdigit() for char in piece) <= 1 for piece in pieces)


def test_the_space_before_a_number_belongs_to_the_word(tokenizer: PreTrainedTokenizerFast) -> None:
    pieces = [tokenizer.decode([token]) for token in tokenizer.encode("within 30 days")]
    assert "".join(pieces) == "within 30 days"
    assert not {" ", " 3"} & set(pieces)


def test_special_tokens_are_one_id_each(tokenizer: PreTrainedTokenizerFast) -> None:
    assert [tokenizer.convert_tokens_to_ids(token) for token in tokenization.SPECIAL] == [
        *range(len(tokenization.SPECIAL))
    ]
    assert tokenizer.eos_token == tokenization.END
    with pytest.raises(KeyError):
        tokenization.id_of(tokenizer.backend_tokenizer, "<|nobody|>")


def test_template_renders_roles_and_generation_prompt(tokenizer: PreTrainedTokenizerFast) -> None:
    messages = [
        {"role": "system", "content": "S"},
        {"role": "user", "content": "U"},
        {"role": "assistant", "content": "A"},
        {"role": "user", "content": "V"},
    ]
    head = "<s><|system|>S<|end|><|user|>U<|end|><|assistant|>A<|end|><|user|>V<|end|>"
    assert _render(tokenizer, messages) == head
    assert _render(tokenizer, messages, add_generation_prompt=True) == head + "<|assistant|>"


@pytest.mark.parametrize(
    ("messages", "expected"),
    [
        ([{"role": "user", "content": "U"}], "<s><|user|>U<|end|>"),
        ([{"role": "user", "content": "U"}] * 2, "<s><|user|>U<|end|><|user|>U<|end|>"),
        ([{"role": "developer", "content": "S"}], "<s><|system|>S<|end|>"),
        ([{"role": "tool", "content": "T"}], "<s><|user|>T<|end|>"),
        ([{"role": "assistant", "content": None}], "<s><|assistant|><|end|>"),
        ([{"role": "assistant"}], "<s><|assistant|><|end|>"),
        (
            [{"role": "user", "content": [{"type": "text", "text": "a "}, {"type": "text",
                                          "text": "b"}, {"type": "image_url"}, "c"]}],
            "<s><|user|>a bc<|end|>",
        ),
    ],
)  # fmt: skip
def test_template_takes_what_clients_send(
    tokenizer: PreTrainedTokenizerFast, messages: object, expected: str
) -> None:
    tools = [{"type": "function", "function": {"name": "f", "parameters": {}}}]
    assert _render(tokenizer, messages) == expected
    assert _render(tokenizer, messages, tools=tools) == expected


def test_encoding_is_the_chat_template_and_weighs_the_answers(
    tokenizer: PreTrainedTokenizerFast,
) -> None:
    for talk in itertools.islice(samples.conversations(5), 20):
        ids, weights = encode(tokenizer.backend_tokenizer, talk, random.Random(1))
        rendered = tokenizer.apply_chat_template(talk.messages(), return_dict=False)
        assert ids == rendered
        answers = [token for token, weight in zip(ids, weights, strict=True) if weight == 1.0]
        expected = "".join(turn.answer + tokenization.END for turn in talk.turns)
        assert tokenizer.decode(answers) == expected


def test_drills_ask_only_for_what_was_there_before(tokenizer: PreTrainedTokenizerFast) -> None:
    for seed in range(20):
        ids, weights = drill(tokenizer.backend_tokenizer, random.Random(seed))
        assert len(ids) == len(weights) == 127
        assert sum(weights) > 20
        pairs = set()
        for before, token, weight in zip(ids, ids[1:], weights[1:], strict=False):
            assert weight == 0.0 or token in {after for _, after in pairs}
            pairs.add((before, token))


def test_batches_are_seeded_bounded_and_shared_between_workers(
    tokenizer: PreTrainedTokenizerFast,
) -> None:
    raw = tokenizer.backend_tokenizer
    first = list(itertools.islice(batches(raw, 1, 4096), 30))
    again = list(itertools.islice(batches(raw, 1, 4096), 30))
    assert all((a.ids == b.ids).all() for a, b in zip(first, again, strict=True))
    assert all(batch.tokens <= 4096 and batch.ids.shape[1] % ROUND == 0 for batch in first)
    mine, other = (next(batches(raw, 1, 4096, pool=90 + rank, stride=2)) for rank in (0, 1))
    assert mine.pool != other.pool
    assert mine.ids.shape != other.ids.shape or (mine.ids != other.ids).any()
