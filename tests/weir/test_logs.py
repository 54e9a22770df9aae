"""Log lines are JSON objects that carry the request and the tenant of their task."""

from __future__ import annotations

import asyncio
import io
import json
import logging
from collections.abc import Iterator

import pytest

from weir.logs import JsonFormatter, configure_logging, request_logging
from weir.settings.tree import LogSettings


@pytest.fixture
def lines() -> Iterator[io.StringIO]:
    stream = io.StringIO()
    handler = logging.StreamHandler(stream)
    handler.setFormatter(JsonFormatter())
    logger = logging.getLogger("test.logs")
    logger.addHandler(handler)
    logger.propagate = False
    logger.setLevel("DEBUG")
    yield stream
    logger.removeHandler(handler)


def read(stream: io.StringIO) -> list[dict[str, object]]:
    return [json.loads(line) for line in stream.getvalue().splitlines()]


def test_a_line_has_time_level_logger_message_and_extras(lines: io.StringIO) -> None:
    logging.getLogger("test.logs").warning("%d tokens\nleft", 5, extra={"model": "m", "ü": object})
    (line,) = read(lines)
    assert line["level"] == "warning"
    assert line["logger"] == "test.logs"
    assert line["msg"] == "5 tokens\nleft"
    assert line["model"] == "m"
    assert str(line["ts"]).endswith("+00:00")
    assert "request_id" not in line
    assert "tenant" not in line


def test_an_exception_stays_on_the_line(lines: io.StringIO) -> None:
    try:
        raise ValueError("boom")
    except ValueError:
        logging.getLogger("test.logs").exception("failed")
    (line,) = read(lines)
    assert "ValueError: boom" in str(line["exception"])


async def test_tasks_do_not_see_each_others_request(lines: io.StringIO) -> None:
    log = logging.getLogger("test.logs")

    async def serve(request_id: str, tenant: str) -> None:
        with request_logging(request_id, tenant):
            log.info("start")
            await asyncio.sleep(0)
            log.info("end")

    await asyncio.gather(serve("r1", "a"), serve("r2", "b"))
    log.info("after")
    who = [(line.get("request_id"), line.get("tenant"), line["msg"]) for line in read(lines)]
    assert sorted(who[:-1]) == sorted(
        [("r1", "a", "start"), ("r2", "b", "start"), ("r1", "a", "end"), ("r2", "b", "end")]
    )
    assert who[-1] == (None, None, "after")


@pytest.mark.parametrize("form", ["json", "text"])
def test_configuring_twice_does_not_say_things_twice(
    form: str, capsys: pytest.CaptureFixture[str]
) -> None:
    for _ in range(2):
        configure_logging(LogSettings.model_validate({"format": form, "level": "warning"}))
    logging.getLogger("weir.x").info("quiet")
    logging.getLogger("weir.x").warning("loud")
    (line,) = capsys.readouterr().err.splitlines()
    assert "loud" in line
    assert line.startswith("{") == (form == "json")
