"""``weir trace`` draws a trace as a tree, and asks several gateways until one has it."""

from __future__ import annotations

from typing import Any

import pytest
from typer.testing import CliRunner

from weir.cli import gateway
from weir.cli.exits import CommandError
from weir.cli.main import app
from weir.cli.trace import _find, draw


def _span(name: str, id: str, parent: str, start: float, took: float, **told: Any) -> Any:
    return {
        "name": name,
        "span_id": id,
        "parent_id": parent,
        "start_ms": start,
        "duration_ms": took,
        "attributes": told,
        "error": "",
    }


TRACE: dict[str, Any] = {
    "trace_id": "ab" * 16,
    "request_id": "r1",
    "tenant": "shop",
    "kept": "slow",
    "name": "POST /v1/chat/completions",
    "began": "2026-11-28T01:00:00.000+00:00",
    "duration_ms": 100.0,
    "error": "",
    "spans": [
        _span("POST /v1/chat/completions", "a", "of-the-client", 0.0, 100.0),
        _span("receive", "b", "a", 0.0, 1.0),
        _span("leg", "c", "a", 50.0, 50.0, **{"weir.replica": "r-7"}),
        _span(
            "decide",
            "d",
            "c",
            50.0,
            0.0,
            **{
                "weir.decision.reason": "least",
                "weir.decision.candidates": 3,
                "weir.decision.best": ["r-7 12.0", "r-8 90.0"],
            },
        ),
    ],
}


def test_a_tree() -> None:
    lines = list(draw(TRACE))
    assert lines[0] == f"trace {'ab' * 16}, request r1, tenant shop"
    assert "kept because slow" in lines[1]
    names = [line[:34].rstrip() for line in lines[3:]]
    assert names == ["POST /v1/chat/completions", "  receive", "  leg", "    decide"]
    assert lines[5].endswith("r-7")
    assert "least: r-7 12.0, r-8 90.0, 1 more" in lines[6]
    bar = lines[5].split("ms  ", 1)[1]
    assert bar.startswith(" " * 12 + "━" * 12)


@pytest.mark.parametrize(("gateways", "has_it", "asked"), [(1, 99, 1), (3, 99, 12), (3, 5, 5)])
def test_several_gateways_are_asked(
    monkeypatch: pytest.MonkeyPatch, gateways: int, has_it: int, asked: int
) -> None:
    pages: list[str] = []

    def answer(url: str, path: str, token: str) -> dict[str, Any]:
        pages.append(path)
        return {"gateways": gateways, "traces": [TRACE] if len(pages) == has_it else []}

    monkeypatch.setattr(gateway, "ask_gateway", answer)
    monkeypatch.setenv("WEIR_INTERNAL_TOKEN", "t")
    if has_it <= asked:
        assert _find("r/1", "http://x/v1")["traces"] == [TRACE]
    else:
        with pytest.raises(CommandError, match="no trace of 'r/1'"):
            _find("r/1", "http://x/v1")
    assert pages == ["/weir/traces?id=r%2F1"] * asked


def test_the_newest_one_a_line(monkeypatch: pytest.MonkeyPatch) -> None:
    body = {"gateways": 1, "traces": [TRACE, TRACE]}
    monkeypatch.setattr(gateway, "ask_gateway", lambda *_: body)
    told = CliRunner().invoke(app, ["trace", "--url", "http://x"], env={"WEIR_INTERNAL_TOKEN": "t"})
    assert told.exit_code == 0, told.output
    assert len(told.output.splitlines()) == 2
    assert "r1" in told.output
