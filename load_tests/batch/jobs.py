"""A client of ``/v1/files`` and ``/v1/batches`` that bears with a platform whose parts die."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Sequence
from types import TracebackType
from typing import Any, Self

import httpx

from load_tests.loadgen import Target
from load_tests.servers import StartError

ENDED = ("completed", "failed", "expired", "cancelled")
_ENDPOINT = "/v1/chat/completions"
_POLL_S = 0.2
_PATIENCE_S = 60.0


def batch_lines(model: str, texts: Sequence[str], output_tokens: int) -> bytes:
    """One request for a chat in each line; its id is its number."""
    lines = []
    for number, text in enumerate(texts):
        body = {
            "model": model,
            "messages": [{"role": "user", "content": text}],
            "max_tokens": output_tokens,
            "temperature": 0,
            "ignore_eos": True,
        }
        line = {"custom_id": str(number), "method": "POST", "url": _ENDPOINT, "body": body}
        lines.append(json.dumps(line).encode())
    return b"\n".join(lines) + b"\n"


class Jobs:
    """The batches of one tenant. Every call is tried again for a minute where it fails for
    now."""

    def __init__(self, target: Target) -> None:
        self._http = httpx.Client(
            base_url=f"http://{target.host}:{target.port}/v1",
            headers=dict(target.headers),
            timeout=120.0,
            trust_env=False,
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._http.close()

    def submit(self, lines: bytes) -> str:
        """Upload the lines and begin a batch; its id."""
        form: dict[str, Any] = {
            "data": {"purpose": "batch"},
            "files": {"file": ("input.jsonl", lines)},
        }
        file = self._asked("POST", "/files", **form).json()
        body = {"input_file_id": file["id"], "endpoint": _ENDPOINT, "completion_window": "24h"}
        return str(self._asked("POST", "/batches", json=body).json()["id"])

    def state(self, batch_id: str) -> dict[str, Any]:
        """The batch as it stands."""
        told: dict[str, Any] = self._asked("GET", f"/batches/{batch_id}").json()
        return told

    def cancel(self, batch_id: str) -> None:
        """Stop it, and wait until it has ended."""
        self._asked("POST", f"/batches/{batch_id}/cancel")
        self.until(batch_id, lambda batch: batch["status"] in ENDED, 60.0)

    def until(
        self, batch_id: str, wanted: Callable[[dict[str, Any]], bool], limit_s: float
    ) -> dict[str, Any]:
        """The batch as soon as it is as wanted.

        Raises:
            StartError: it is not, after ``limit_s``.
        """
        deadline_s = time.monotonic() + limit_s
        while True:
            batch = self.state(batch_id)
            if wanted(batch):
                return batch
            if time.monotonic() > deadline_s:
                counts = str(batch["request_counts"])
                raise StartError(f"the batch is {batch['status']} after {limit_s:.0f} s", counts)
            time.sleep(_POLL_S)

    def result_ids(self, batch: dict[str, Any]) -> list[str]:
        """The ids of the lines with a result, as often as they have one."""
        ids: list[str] = []
        for name in ("output_file_id", "error_file_id"):
            if batch[name] is not None:
                text = self._asked("GET", f"/files/{batch[name]}/content").text
                ids += [json.loads(line)["custom_id"] for line in text.splitlines()]
        return ids

    def _asked(self, method: str, path: str, **given: Any) -> httpx.Response:
        deadline_s = time.monotonic() + _PATIENCE_S
        while True:
            reason = ""
            try:
                answer = self._http.request(method, path, **given)
                if answer.status_code < 400:
                    return answer
                reason = f"{answer.status_code}: {answer.text[:200]}"
                if answer.status_code not in (429, 502, 503):
                    raise StartError(f"{method} {path}: {reason}", "")
            except httpx.HTTPError as error:
                reason = repr(error)
            if time.monotonic() > deadline_s:
                raise StartError(f"{method} {path}: {reason}", "")
            time.sleep(_POLL_S)
