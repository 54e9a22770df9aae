"""MFU and MBU by hand, for steps of which everything is known."""

from pathlib import Path

import pytest

from weir.cards import read_card
from weir.cards.peaks import Peaks, device_peaks
from weir.cards.usage import Step, UsageMeter, WorkCounter

TEACHER = Path(__file__).parents[3] / "platform/weir/artifacts/teacher"
BLOCKS = 100


@pytest.fixture
def card():
    return read_card(TEACHER, block_size=16)


def counted(card, *steps: Step, devices: int = 1) -> WorkCounter:
    counter = WorkCounter(card, BLOCKS, devices)
    for step in steps:
        counter.add_step(step)
    return counter


def test_a_prefill_is_what_the_card_says_of_it(card):
    work = counted(card, Step(1, 200, 100, 1, 0.0))
    assert work.flops == card.prefill_flops(200, 100)
    assert work.moved_bytes == card.step_weight_bytes(200) + 200 * card.kv_bytes_per_token


def test_a_decode_step_is_what_the_card_says_of_it(card):
    # Four streams of 100 blocks * 16 tokens / 4 fill the cache.
    work = counted(card, Step(0, 0, 0, 4, 1.0))
    assert work.flops == card.decode_flops(4, 400)
    assert work.moved_bytes == card.decode_bytes(4, 400)


def test_two_devices_share_the_work(card):
    step = Step(0, 0, 0, 4, 1.0)
    assert counted(card, step, devices=2).flops == counted(card, step).flops / 2


def test_the_meter_averages_whole_windows_and_falls_to_nothing(card):
    counter = WorkCounter(card, BLOCKS)
    meter = UsageMeter(counter, Peaks(1000.0, 100.0, "test"))
    assert meter.read(10.0) == (0.0, 0.0)
    counter.add(500.0, 100.0)
    assert meter.read(10.9) == (0.0, 0.0)  # the window is not over
    assert meter.read(12.0) == (0.25, 0.5)
    assert meter.read(12.5) == (0.25, 0.5)
    assert meter.read(13.0) == (0.0, 0.0)


@pytest.mark.parametrize(
    ("name", "teraflops"),
    [
        ("NVIDIA H100 80GB HBM3", 989),
        ("NVIDIA H100 PCIe", 756),
        ("H100", 989),
        ("NVIDIA A100-SXM4-80GB", 312),
        ("NVIDIA L4", 121),
        ("NVIDIA L40S", 362),
        ("AMD Instinct MI300X", 1307),
    ],
)
def test_devices_by_the_names_that_drivers_give_them(name, teraflops):
    peaks = device_peaks(name)
    assert peaks is not None
    assert peaks.flops_per_s == teraflops * 1e12


@pytest.mark.parametrize("name", ["NVIDIA A10G", "NVIDIA L40", "NVIDIA GH200 480GB", "Tesla K80"])
def test_other_devices_have_no_peaks(name):
    assert device_peaks(name) is None
