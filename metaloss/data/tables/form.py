"""Options for the format of a CSV file."""

from __future__ import annotations

from dataclasses import dataclass, field

from metaloss.data.tables.cells import Decimal, Thousands
from metaloss.errors import MetalossError
from metaloss.options import Options


@dataclass(frozen=True, kw_only=True)
class CSVForm(Options, group="task"):
    """Options for the format of a CSV file. Defaults are inferred from the file."""

    decimal: Decimal = field(
        default=Decimal.auto,
        metadata={"help": "decimal sign of numbers; auto: read it from the cells"},
    )
    thousands: Thousands = field(
        default=Thousands.auto,
        metadata={"help": "sign between groups of digits; auto: read it from the cells"},
    )
    dates: str = field(
        default="",
        metadata={"help": "format of dates, such as %d.%m.%Y; empty: only 2024-01-31"},
    )
    comment: str = field(
        default="", metadata={"help": "sign that begins a comment; the rest of the line is ignored"}
    )
    encoding: str = field(
        default="",
        metadata={
            "help": "encoding, such as cp1252; empty: UTF-8, or by the file's byte order mark"
        },
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.decimal is not Decimal.auto and self.decimal.value == self.thousands.value:
            raise MetalossError(
                f"task.decimal={self.decimal.value} and task.thousands={self.thousands.value}: "
                "expected different signs"
            )
        if self.comment and (len(self.comment) != 1 or self.comment in '",;\t|\r\n '):
            raise MetalossError(f"task.comment={self.comment}: expected one sign, such as #")
        try:
            "".encode(self.encoding or "utf-8")  # a codec of bytes has no str.encode
        except (LookupError, ValueError) as error:
            raise MetalossError(
                f"task.encoding={self.encoding}: expected the name of an encoding, such as cp1252"
            ) from error
