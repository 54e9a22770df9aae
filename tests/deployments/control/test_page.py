"""The dashboard's files: small, of one's own origin, without anything inline."""

from __future__ import annotations

import re
from importlib import resources

import pytest

from deployments.control.page_files import FILES, PAGE_PATH, POLICY
from tests.deployments.control.world import World

_MOST_BYTES = 150 * 1024
_FOLDER = resources.files("deployments.control") / "page"


def _paths() -> list[str]:
    return [f"{PAGE_PATH}/{name}".rstrip("/") for name in FILES]


@pytest.mark.parametrize("path", _paths())
async def test_a_file_is_for_everybody_and_loads_nothing_from_elsewhere(
    path: str, world: World
) -> None:
    answer = await world.ask("GET", path, None)
    assert answer.status_code == 200
    assert answer.headers["content-security-policy"] == POLICY
    assert answer.headers["x-content-type-options"] == "nosniff"
    again = await world.ask("GET", path, None, headers={"if-none-match": answer.headers["etag"]})
    assert (again.status_code, again.content) == (304, b"")


def test_the_policy_lets_nothing_inline_run() -> None:
    assert "unsafe" not in POLICY
    assert "default-src 'none'" in POLICY
    html = (_FOLDER / "index.html").read_text()
    assert not re.search(r"<script(?![^>]*\ssrc=)", html), "an inline script"
    assert not re.search(r"\s(style|on\w+)=", html)
    assert "<style" not in html


def test_it_is_small() -> None:
    sizes = {name: len((_FOLDER / file).read_bytes()) for name, file in FILES.items()}
    assert sum(sizes.values()) <= _MOST_BYTES, sizes


def test_every_file_in_the_folder_is_served_or_a_licence() -> None:
    found = {
        f"{prefix}{each.name}"
        for prefix, folder in (("", _FOLDER), ("vendor/", _FOLDER / "vendor"))
        for each in folder.iterdir()
        if each.is_file()
    }
    licences = {name for name in found if name.endswith(".LICENSE")}
    assert licences == {"vendor/htm.LICENSE", "vendor/preact.LICENSE", "vendor/uplot.LICENSE"}
    assert found - licences == set(FILES.values())


def test_own_files_name_no_other_origin() -> None:
    for name in FILES.values():
        if not name.startswith("vendor/") and name != "icon.svg":
            assert not re.search(r"(https?:)?//[a-z0-9-]+\.[a-z]", (_FOLDER / name).read_text()), (
                name
            )
