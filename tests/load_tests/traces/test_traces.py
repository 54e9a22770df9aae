"""Each format's reader, on its hand-written sample and, where they are, on real files."""

from __future__ import annotations

from pathlib import Path

import pytest

from load_tests.traces import (
    FORMATS,
    TraceError,
    assign_classes,
    detect_format,
    head,
    jitter_ticks,
    load_trace,
    merge,
    scale_rate,
)

ROOT = Path(__file__).parents[3]
SAMPLES = ROOT / "load_tests" / "traces" / "samples"
SHARED = ROOT.parent / "shared" / "traces"


def sample(name: str) -> Path:
    (path,) = SAMPLES.glob(f"{name}.*")
    return path


def shared(name: str) -> Path:
    path = SHARED / name
    if not path.exists():
        pytest.skip(f"{path} is not here: the public traces are not part of the repository")
    return path


@pytest.mark.parametrize("name", FORMATS)
def test_every_format_has_a_sample_that_reads_into_the_schema(name: str) -> None:
    trace = load_trace(sample(name))
    assert trace.format == name
    assert trace.requests
    size = trace.block_size
    for index, request in enumerate(trace.requests):
        assert request.prompt_tokens > 0
        assert request.output_tokens > 0
        assert len(request.block_hashes) <= request.prompt_tokens // size
        assert all(0 <= block < 2**60 for block in request.block_hashes)
        assert all(parent < index for parent, _ in request.after)
    if not trace.closed_loop:
        times = [request.arrival_s for request in trace.requests]
        assert times == sorted(times)
    else:
        assert sorted(i for s in trace.sessions for i in s) == list(range(len(trace.requests)))


def test_mooncake_drops_the_block_that_is_not_full_and_sees_the_tick() -> None:
    trace = load_trace(sample("mooncake"))
    assert trace.requests[0].block_hashes == (0, 1)  # 1100 tokens: two blocks of 512
    assert trace.requests[1].block_hashes == (0, 1)
    assert trace.requests[3].block_hashes == ()
    assert trace.tick_s == 3.0
    assert trace.span_s == 9.0


def test_jitter_stays_inside_the_tick_and_repeats_with_the_seed() -> None:
    trace = load_trace(sample("mooncake"))
    moved = jitter_ticks(trace, seed=3)
    assert moved == jitter_ticks(trace, seed=3)
    assert moved != jitter_ticks(trace, seed=4)
    by_blocks = {request.block_hashes: request.arrival_s for request in trace.requests[2:]}
    for request in moved.requests[2:]:
        assert 0 <= request.arrival_s - by_blocks[request.block_hashes] <= 3
    assert sum(1 for request in moved.requests if request.arrival_s == 0) == 0


def test_scaling_keeps_order_and_divides_the_span() -> None:
    trace = load_trace(sample("mooncake"))
    fast = scale_rate(trace, 2)
    assert fast.span_s == trace.span_s / 2
    assert [r.block_hashes for r in fast.requests] == [r.block_hashes for r in trace.requests]
    with pytest.raises(TraceError, match="positive"):
        scale_rate(trace, 0)
    with pytest.raises(TraceError, match="closed-loop"):
        scale_rate(load_trace(sample("weka")), 2)


def test_weka_sessions_share_tools_only_and_wait_for_sub_agents() -> None:
    trace = load_trace(sample("weka"))
    first, second = trace.sessions
    parent, inner, inner_next, after = (trace.requests[index] for index in first)
    assert inner.after == ((0, 0.0),)
    assert inner_next.after == ((1, 1.0),)
    assert after.after == ((0, 8.0), (2, 0.0))
    assert len(parent.block_hashes) == 3  # 25 blocks of 64, eight to one
    assert after.block_hashes[:3] == parent.block_hashes
    other = trace.requests[second[0]]
    assert other.block_hashes[:2] == parent.block_hashes[:2]  # 1024 tool tokens
    assert other.block_hashes[2] != parent.block_hashes[2]
    assert inner.block_hashes[0] != parent.block_hashes[0]  # other tools
    assert len(second) == 1  # the context passed the limit


def test_weka_without_shared_tools_shares_nothing() -> None:
    trace = load_trace(sample("weka"), share_tools=False)
    first, second = (trace.requests[session[0]].block_hashes for session in trace.sessions)
    assert not set(first) & set(second)


def test_lmcache_hashes_text_by_prefix() -> None:
    trace = load_trace(sample("lmcache"))
    first, second, other = (request.block_hashes for request in trace.requests)
    assert second[: len(first)] == first
    assert len(second) > len(first)
    assert other == first[: len(other)]
    assert trace.requests[1].after == ((0, 3.5),)
    assert {request.tenant for request in trace.requests} == {"demo", "other"}


def test_servegen_draws_at_the_measured_rate() -> None:
    trace = load_trace(sample("servegen"))
    counts = {"client-0": 0, "client-1": 0}
    for request in trace.requests:
        counts[request.tenant] += 1
    assert 100 < counts["client-0"] < 900  # 0.5/s for 600 s, bursty
    assert 60 < counts["client-1"] < 240  # 0.2/s
    assert load_trace(sample("servegen"), window_start_s=600).requests[-1].tenant == "client-1"
    with pytest.raises(TraceError, match="no window"):
        load_trace(sample("servegen"), window_start_s=1)


def test_classes_go_by_session_where_there_are_sessions() -> None:
    trace = assign_classes(load_trace(sample("weka")), {"interactive": 1, "batch": 1}, seed=1)
    for session in trace.sessions:
        assert len({trace.requests[index].priority_class for index in session}) == 1


def test_head_keeps_whole_sessions() -> None:
    trace = load_trace(sample("weka"))
    assert len(head(trace, 1).requests) == 4
    assert len(head(trace, 5).sessions) == 2
    assert len(head(load_trace(sample("mooncake")), 2).requests) == 2


def test_merge_sorts_and_checks() -> None:
    arena, azure = load_trace(sample("lmsys-vtc")), load_trace(sample("azure"))
    both = merge([arena, azure], "both")
    assert len(both.requests) == 6
    assert [r.arrival_s for r in both.requests] == sorted(r.arrival_s for r in both.requests)
    with pytest.raises(TraceError, match="block sizes"):
        merge([arena, load_trace(sample("mooncake"))], "no")
    with pytest.raises(TraceError, match="closed-loop"):
        merge([arena, load_trace(sample("weka"))], "no")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "not JSON"),
        ("[1]", "expected an object"),
        ('{"timestamp": 1, "input_length": 5}', "hash_ids"),
        ('{"timestamp": "x", "input_length": 5, "hash_ids": []}', "timestamp should be int"),
        ("", "no requests"),
    ],
)
def test_a_broken_file_names_itself_and_its_fault(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "mooncake.jsonl"
    path.write_text(text)
    with pytest.raises(TraceError, match=message) as caught:
        load_trace(path)
    assert str(path) in str(caught.value)


def test_unknown_names_and_missing_files(tmp_path: Path) -> None:
    with pytest.raises(TraceError, match="cannot tell"):
        detect_format(Path("what.jsonl"))
    with pytest.raises(TraceError, match="known: mooncake"):
        load_trace(sample("mooncake"), "parquet")
    with pytest.raises(TraceError, match="No such file"):
        load_trace(tmp_path / "azure.csv")
    (tmp_path / "azure.csv").write_text("a,b\n1,2\n")
    with pytest.raises(TraceError, match="no column TIMESTAMP"):
        load_trace(tmp_path / "azure.csv")


@pytest.mark.parametrize(
    ("file", "limit", "block_size"),
    [
        ("mooncake_conv_dev.jsonl.gz", 300, 512),
        ("mooncake_synthetic.jsonl.gz", 300, 512),
        ("weka_claudecode_dev.jsonl.gz", 5, 512),
        ("azure2023_code.csv.gz", 300, 16),
        ("lmsys_arena_vtc.jsonl.gz", 300, 16),
        ("lmcache_agent_text.jsonl.gz", 40, 16),
        ("servegen_reason_deepseek-r1.csv.gz", 300, 16),
    ],
)
def test_real_files_read(file: str, limit: int, block_size: int) -> None:
    trace = load_trace(shared(file), limit=limit)
    assert trace.block_size == block_size
    assert len(trace.requests) > 0


def test_the_real_mooncake_file_has_the_known_tick_and_first_block() -> None:
    trace = load_trace(shared("mooncake_conv_dev.jsonl.gz"), limit=500)
    assert trace.tick_s == 3.0
    with_blocks = [request for request in trace.requests if request.block_hashes]
    # The trap: nearly every request shares its first block.
    same = sum(request.block_hashes[0] == with_blocks[0].block_hashes[0] for request in with_blocks)
    assert same > 0.95 * len(with_blocks)
