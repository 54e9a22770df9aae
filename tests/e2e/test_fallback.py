"""The student of the default platform: warm, asked by name, answering for its teacher."""

from __future__ import annotations

import time
from typing import Any

import pytest

pytestmark = pytest.mark.e2e

ASK = {"messages": [{"role": "user", "content": "where is my order"}], "max_tokens": 8}


def test_the_student_is_there_and_can_be_asked_by_name(platform: Any) -> None:
    with platform.http() as http:
        names = [model["id"] for model in http.get("/v1/models").json()["data"]]
        assert names == ["weir-teacher", "weir-student"]
        response = http.post("/v1/chat/completions", json={"model": "weir-student", **ASK})
    assert response.status_code == 200
    assert response.headers["x-weir-model-answered"] == "weir-student"
    assert "x-weir-spill" not in response.headers


def test_the_student_answers_while_its_teacher_has_no_replica(platform: Any) -> None:
    """Scale to zero and back, under requests: none fails, and each says who answered."""
    down = platform.weir("apply", "--scale", "weir-teacher=0")
    assert down.returncode == 0, down.stderr
    try:
        with platform.http() as http:
            deadline_s = time.monotonic() + 20
            while time.monotonic() < deadline_s:
                response = http.post("/v1/chat/completions", json={"model": "weir-teacher", **ASK})
                assert response.status_code == 200, response.text
                if response.headers["x-weir-model-answered"] == "weir-student":
                    break
                time.sleep(0.1)
            assert response.headers["x-weir-spill"] == "failure"
            assert response.json()["model"] == "weir-student"
            assert http.get("/ready").status_code == 200
    finally:
        up = platform.weir("apply", "--scale", "weir-teacher=2")
    assert up.returncode == 0, up.stderr
    with platform.http() as http:
        for _ in range(50):
            response = http.post("/v1/chat/completions", json={"model": "weir-teacher", **ASK})
            assert response.status_code == 200, response.text
            if response.headers["x-weir-model-answered"] == "weir-teacher":
                return
            time.sleep(0.2)
    raise AssertionError("the teacher is up again, and the student still answers")
