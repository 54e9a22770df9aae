"""Texts and pairs cut to length: as the tokenizer itself would cut them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from tokenizers import Tokenizer, models, pre_tokenizers, processors

from deployments.gateway.prompts import PromptEncoder
from deployments.gateway.reading import Cut, pair_ids, text_ids
from weir.errors import BadRequestError, ContextLengthError

WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", *(f"w{i}" for i in range(40))]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tokenizer that joins pairs as BERT's does."""
    folder = tmp_path_factory.mktemp("bert")
    tokenizer = Tokenizer(models.WordLevel({w: i for i, w in enumerate(WORDS)}, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer.post_processor = processors.BertProcessing(("[SEP]", 3), ("[CLS]", 2))
    tokenizer.save(str(folder / "tokenizer.json"))
    (folder / "tokenizer_config.json").write_text(json.dumps({}))
    return folder


@pytest.fixture(scope="module")
def encoder(folder: Path) -> PromptEncoder:
    return PromptEncoder(folder)


def words(count: int, first: int = 0) -> str:
    return " ".join(f"w{first + i}" for i in range(count))


def test_a_pair_is_joined_with_its_types(encoder: PromptEncoder) -> None:
    ids = pair_ids(encoder, "w0 w1", "w2", Cut(), None, "documents[0]")
    assert ids == [2, 4, 5, 3, 6, 3]
    assert ids.second == 4


@pytest.mark.parametrize("lengths", [(3, 20), (20, 3), (12, 12), (1, 1), (9, 11), (30, 28)])
@pytest.mark.parametrize("most", [4, 8, 9, 16])
def test_a_pair_is_cut_as_the_tokenizer_cuts_it(
    folder: Path, encoder: PromptEncoder, lengths: tuple[int, int], most: int
) -> None:
    first, second = words(lengths[0]), words(lengths[1], 5)
    own = Tokenizer.from_file(str(folder / "tokenizer.json"))
    own.enable_truncation(most, strategy="longest_first")
    right = own.encode(first, second)
    ids = pair_ids(encoder, first, second, Cut(most), None, "d")
    assert (ids, ids.second) == (right.ids, right.type_ids.index(1))


@pytest.mark.parametrize("most", [2, 3, 7, 50])
def test_a_text_is_cut_as_the_tokenizer_cuts_it(
    folder: Path, encoder: PromptEncoder, most: int
) -> None:
    own = Tokenizer.from_file(str(folder / "tokenizer.json"))
    own.enable_truncation(most)
    right = own.encode(words(20)).ids
    assert text_ids(encoder, words(20), True, Cut(most), None, "input") == right


def test_a_side_keeps_that_side_whatever_is_there(encoder: PromptEncoder) -> None:
    def cut(side: str) -> list[int]:
        kept = Cut(3, side)  # type: ignore[arg-type]
        return text_ids(encoder, words(5), True, kept, None, "input")

    assert cut("right") == [2, 4, 5]
    assert cut("left") == [7, 8, 3]
    left = pair_ids(encoder, "w0 w1", "w2 w3", Cut(3, "left"), None, "d")
    assert (left, left.second) == ([6, 7, 3], 0)


def test_each_side_of_a_pair_has_its_own_bound(encoder: PromptEncoder) -> None:
    ids = pair_ids(encoder, words(9), words(9, 9), Cut(first=1, second=2), None, "d")
    assert ids == [2, 4, 3, 13, 14, 3]


def test_minus_one_is_the_context_and_more_is_refused() -> None:
    assert Cut(-1, "left").within(48) == Cut(48, "left")
    assert Cut(5).within(48) == Cut(5)
    assert Cut(-1, first=3).within(0) == Cut(first=3)
    with pytest.raises(BadRequestError, match="context is 48"):
        Cut(49).within(48)


def test_what_cannot_be_read_is_refused(encoder: PromptEncoder) -> None:
    with pytest.raises(BadRequestError, match="special tokens"):
        pair_ids(encoder, "w0", "w1", Cut(2), None, "d")
    with pytest.raises(BadRequestError, match="Unicode"):
        pair_ids(encoder, "\ud800", "w1", Cut(), None, "documents[3]")


def test_ids_are_cut_too() -> None:
    assert Cut(2).of([1, 2, 3]) == [1, 2]
    assert Cut(2, "left").of([1, 2, 3]) == [2, 3]
    assert Cut().of([1, 2, 3]) == [1, 2, 3]


def test_a_pair_that_cannot_fit_is_not_tokenized(
    encoder: PromptEncoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(encoder, "fewest_tokens", lambda text: 30)
    with pytest.raises(ContextLengthError, match="at least 60 tokens"):
        pair_ids(encoder, "w0", "w1", Cut(), 48, "d")
    assert pair_ids(encoder, "w0", "w1", Cut(48), 48, "d") == [2, 4, 3, 5, 3]
