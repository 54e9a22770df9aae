"""Sampled call stacks: where the time goes, in words and as a flame graph.

Stacks come in the collapsed form of Brendan Gregg's FlameGraph: one line per stack, frames from the
outermost to the innermost with semicolons between, a blank, and how many samples had it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from html import escape

_WIDTH, _ROW = 1200.0, 18
_NARROWEST = 0.3
_STYLE = "rect:hover{stroke:black}text{font:11px monospace;pointer-events:none}"


@dataclass(frozen=True, slots=True)
class Cost:
    """A function that was running itself (no callee of it) in ``share`` of all samples."""

    process: str
    function: str
    share: float


@dataclass(slots=True)
class _Node:
    samples: int = 0
    children: dict[str, _Node] = field(default_factory=dict)


def parse_stacks(collapsed: str) -> dict[tuple[str, ...], int]:
    """Samples by stack, outermost frame first; lines that are no stacks are left out."""
    stacks: dict[tuple[str, ...], int] = {}
    for line in collapsed.splitlines():
        frames, _, count = line.rpartition(" ")
        if frames and count.isdigit():
            stack = tuple(frames.split(";"))
            stacks[stack] = stacks.get(stack, 0) + int(count)
    return stacks


def largest_costs(processes: Mapping[str, str], count: int = 3) -> list[Cost]:
    """The functions with the most samples of their own, over all processes' collapsed stacks."""
    own: dict[tuple[str, str], int] = {}
    for process, collapsed in processes.items():
        for stack, samples in parse_stacks(collapsed).items():
            key = (process, stack[-1])
            own[key] = own.get(key, 0) + samples
    total = sum(own.values())
    ranked = sorted(own.items(), key=lambda item: -item[1])[:count]
    return [Cost(process, function, samples / total) for (process, function), samples in ranked]


def draw_flame_graph(processes: Mapping[str, str], title: str) -> str:
    """An SVG: one column of frames per process, as wide as its share of the samples. A frame's
    tooltip has its samples."""
    root = _Node()
    for process, collapsed in processes.items():
        for stack, samples in parse_stacks(collapsed).items():
            _add(root, (process, *stack), samples)
    height = (_depth(root) + 2) * _ROW
    body = "\n".join(_boxes(root, 0.0, 1, max(1, root.samples)))
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH:g} {height}">'
        f'<style>{_STYLE}</style><text x="4" y="13">{escape(title)}</text>\n{body}\n</svg>\n'
    )


def _add(root: _Node, frames: Iterable[str], samples: int) -> None:
    node = root
    node.samples += samples
    for frame in frames:
        node = node.children.setdefault(frame, _Node())
        node.samples += samples


def _depth(node: _Node) -> int:
    return 1 + max((_depth(child) for child in node.children.values()), default=0)


def _boxes(node: _Node, left: float, row: int, total: int) -> Iterator[str]:
    for name, child in sorted(node.children.items()):
        width = child.samples / total * _WIDTH
        if width >= _NARROWEST:
            yield _box(name, child.samples, total, left, width, row)
            yield from _boxes(child, left, row + 1, total)
        left += width


def _box(name: str, samples: int, total: int, left: float, width: float, row: int) -> str:
    color = f"hsl({20 + sum(name.encode()) % 40},80%,68%)"  # the same function, the same colour
    top, room = row * _ROW, int(width / 6.8)
    label = escape(name[:room]) if room > 2 else ""
    tip = f"{escape(name)}: {samples} of {total} samples, {samples / total:.1%}"
    return (
        f'<g><title>{tip}</title><rect x="{left:.2f}" y="{top}" width="{width:.2f}" '
        f'height="{_ROW - 1}" fill="{color}"/><text x="{left + 2:.2f}" y="{top + 13}">{label}'
        "</text></g>"
    )
