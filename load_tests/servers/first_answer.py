"""Asking a server that may not be up yet: it is up when it answers, not when its port is open."""

from __future__ import annotations

import http.client
import re
import time

from load_tests.loadgen import Target
from load_tests.servers.process import StartError

RETRY_PAUSE_S = 0.1
_TEXT = re.compile(rb'"content":\s?"(?!")|^data: ?\[DONE\]')


def await_first_text(target: Target, body: bytes) -> None:
    """Send one streamed request; return when its first text (or its regular end) has arrived.

    Raises:
        StartError: an error, or a stream that broke off.
    """
    connection = http.client.HTTPConnection(target.host, target.port, timeout=60)
    headers = {"Content-Type": "application/json", **dict(target.headers)}
    try:
        connection.request("POST", target.path, body, headers)
        with connection.getresponse() as response:
            if response.status != 200:
                text = response.read(500).decode("utf-8", "replace")
                raise StartError(f"status {response.status}", text)
            for line in response:
                if _TEXT.search(line):
                    return
    except (OSError, http.client.HTTPException) as error:
        raise StartError(f"no answer: {error!r}", "") from error
    finally:
        connection.close()
    raise StartError("the stream had neither text nor an end", "")


def await_answer(target: Target, body: bytes, patience_s: float) -> None:
    """Ask until a request is answered: some servers (Ray Serve LLM's ingress) say that they are
    up before their model is.

    Raises:
        StartError: none was within ``patience_s``; the message has the last refusal.
    """
    deadline_s = time.monotonic() + patience_s
    while True:
        try:
            return await_first_text(target, body)
        except StartError:
            if time.monotonic() > deadline_s:
                raise
            time.sleep(RETRY_PAUSE_S)
