"""Kinds of values that options take."""

from typing import Annotated

from cyclopts import Parameter
from cyclopts.validators import Number

__all__ = ["Count", "Limit", "PageSize", "Seconds", "Switch", "Tools"]


Seconds = Annotated[float | None, Parameter(validator=Number(gt=0))]
Count = Annotated[int, Parameter(validator=Number(gte=1))]
Limit = Annotated[int | None, Parameter(validator=Number(gte=1))]
PageSize = Annotated[int, Parameter(validator=Number(gte=1, lte=100))]
Switch = Annotated[bool, Parameter(negative="", show_default=False)]
Tools = Annotated[list[str] | None, Parameter(negative="")]
