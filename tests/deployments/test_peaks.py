"""A node's peaks: measured once, then read."""

import json
import tempfile
from pathlib import Path

import torch

from deployments import peaks


def test_a_cpu_is_measured_once_and_read_after_that(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    monkeypatch.setattr(peaks, "_EACH_S", 0.01)
    measured = peaks.cpu_peaks(torch.float32)
    assert measured.source == "measured"
    assert measured.flops_per_s > 1e8
    assert measured.bytes_per_s > 1e8
    (file,) = tmp_path.iterdir()
    held = json.loads(file.read_text())
    file.write_text(json.dumps(held | {"flops_per_s": 7.0}))
    assert peaks.cpu_peaks(torch.float32).flops_per_s == 7.0
    file.write_text("{}")  # damaged: measured anew
    assert peaks.cpu_peaks(torch.float32).flops_per_s > 1e8
