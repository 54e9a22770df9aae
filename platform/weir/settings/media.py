"""What a model's clients may say of how their images, audio and video are read."""

from __future__ import annotations

from typing import Annotated, Any, Self

from pydantic import Field, StrictBool, StrictFloat, StrictInt, StrictStr, model_validator

from weir.settings.section import Section

#: A path in a request's body: one of vLLM's two fields, and keys below it.
MediaOption = Annotated[
    str, Field(pattern=r"^(mm_processor|media_io)_kwargs(\.[A-Za-z_][A-Za-z0-9_]{0,63}){1,4}$")
]


class OptionBound(Section):
    """Which values are accepted: numbers from ``min`` to ``max``, or those of ``one_of``."""

    min: float | None = None
    max: float | None = None
    one_of: tuple[StrictBool | StrictInt | StrictFloat | StrictStr, ...] = ()

    @model_validator(mode="after")
    def _is_a_bound(self) -> Self:
        numbers = self.min is not None or self.max is not None
        if numbers == bool(self.one_of):
            raise ValueError("either min or max (or both), or one_of")
        if self.min is not None and self.max is not None and self.min > self.max:
            raise ValueError("min is more than max")
        return self

    def accepts(self, value: Any) -> bool:
        """Whether a client may send the value. True is no number here, and 1 is not true."""
        if self.one_of:
            return any(type(value) is type(one) and value == one for one in self.one_of)
        if isinstance(value, bool) or not isinstance(value, int | float):
            return False
        least, most = self.min, self.max
        return (least is None or value >= least) and (most is None or value <= most)

    def __str__(self) -> str:
        if self.one_of:
            return "one of " + ", ".join(repr(one) for one in self.one_of)
        least = [] if self.min is None else [f"at least {self.min:g}"]
        return " and ".join([*least, *([] if self.max is None else [f"at most {self.max:g}"])])
