"""Every block of the documents is run, checked, or says why not."""

from __future__ import annotations

from pathlib import Path

import pytest

from deployments.checking import checked
from tests.docs.blocks import CHECKED, RUN, SHOWN, Block, all_blocks, blocks, expected
from weir.settings.load import overlaid

BLOCKS = all_blocks()
YAML = [block for block in BLOCKS if block.language in CHECKED and block.no_run is None]


def test_every_block_has_a_language() -> None:
    known = {*RUN, *CHECKED, *SHOWN}
    assert [block.name for block in BLOCKS if block.language not in known] == []


def test_what_is_not_run_says_why() -> None:
    """One word is no reason; and what is never run needs none."""
    silent = [block for block in BLOCKS if block.no_run and len(block.no_run.split()) < 3]
    assert [block.name for block in silent] == []
    odd = [block for block in BLOCKS if block.no_run and block.language in SHOWN]
    assert [block.name for block in odd] == []


def test_most_blocks_are_run() -> None:
    can = [block for block in BLOCKS if block.language in RUN]
    run = [block for block in can if block.no_run is None]
    assert len(run) >= 8
    assert {"README.md", "docs/features.md", "docs/clients.md"} <= {b.document for b in run}


@pytest.mark.parametrize("block", YAML, ids=lambda block: block.name)
def test_settings_in_the_documents_are_settings(block: Block, tmp_path: Path) -> None:
    file = tmp_path / "settings.yaml"
    file.write_text(block.text)
    checked(overlaid("laptop", file), block.name, static=True)


def test_a_new_block_is_run_unless_it_says_otherwise(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text(
        "```bash\nls\n```\n```text expect\na\n…b\n```\n```bash no-run: no x here\n```\n"
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("tests.docs.blocks.ROOT", tmp_path)
        first, second = blocks(page)
    assert (first.language, first.no_run, first.expects) == ("bash", None, "a\n…b\n")
    assert second.no_run == "no x here"
    assert expected(first).search("x\na\ny\nbbb\n")
    assert not expected(first).search("bb\na\n")


@pytest.mark.parametrize("text", ["```bash\n", "```bash norun\n```\n", "```bash\n```python\n```\n"])
def test_a_fence_that_is_not_understood_is_told(text: str, tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text(text)
    with pytest.raises(ValueError, match=r"page\.md:[12]"):
        blocks(page)
