"""Either side of a hand-off is lost at every moment of it: what becomes of answers and blocks.

:mod:`load_tests.pdfaults.moments` says when and how, :mod:`load_tests.pdfaults.watching` is the
seam that knows when a moment has come, :mod:`load_tests.pdfaults.virtual` plays them in virtual
time, by the hundreds, :mod:`load_tests.pdfaults.real` with vLLM's engines and NIXL.
"""
