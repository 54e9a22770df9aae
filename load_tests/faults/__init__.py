"""Seeded fault schedules over the real gateway in virtual time, and what must hold after each.

:mod:`load_tests.faults.story` draws what happens, :mod:`load_tests.faults.playing` makes it happen,
:mod:`load_tests.faults.checks` judges it. ``weir bench faults`` plays thousands.
"""
