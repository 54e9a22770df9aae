"""Tracing: what became of a request, step by step, as OpenTelemetry's spans.

A request pays for a trace only if it is kept. While it runs, its record is filled with the times of
its steps, as it is without tracing; at its end :mod:`keeping` says from the record whether it is
kept, and only then :mod:`folding` makes spans of it. :mod:`shipping` sends them from a thread of
its own, through a bounded queue; :mod:`recent` keeps the last of them for ``weir trace``.
"""
