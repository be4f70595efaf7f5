"""The exceptions a caller can expect, and the one place where they are put into words."""

import re
from collections.abc import Callable, Sequence

MARK = "\x1a"  # around the name of a parameter inside a text; no text of a user's has this control character
SHOWN = 10  # rows that are named; of the others the message gives the number
LONGEST = 1_900  # characters of a sentence; what is cut is foreign, such as a type of a thousand fields


# Control characters but tab and line feed, marks of writing direction, and half characters (lone surrogates)
ACTIVE = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069\ud800-\udfff]")


def visible(text: str) -> str:
    r"""Return a text for a terminal, foreign characters that would act there written as JSON writes them.

    >>> visible("a\x1b[31mb")
    'a\\u001b[31mb'
    """
    return ACTIVE.sub(lambda found: f"\\u{ord(found[0]):04x}", text)


def parameter(name: str) -> str:
    """Mark the name of a parameter inside the text of an error, so that each interface can spell it its own way."""
    return f"{MARK}{name}{MARK}"


class BertHelpersError(ValueError):
    """Base of the package's exceptions: what is wrong, where, and how to fix it, as fields.

    `problem` and `fix` are clauses without a full stop; `source` is the file, run or model; `row` is one number or all
    of them, from 1, counted in `unit`s, or ids; `column` is the user's own name of it; `parameter` is the notebook
    parameter that decides. `str(error)` is the sentence with the notebooks' names, `sentence` with others.
    """

    def __init__(
        self,
        problem: str,
        *,
        source: str = "",
        row: int | Sequence[int | str] | None = None,
        unit: str = "row",
        column: str | None = None,
        fix: str = "",
        parameter: str = "",
    ) -> None:
        self.problem, self.source, self.unit, self.column, self.fix = problem, source, unit, column, fix
        rows = [] if row is None else [row] if isinstance(row, int) else row
        self.rows = [number if isinstance(number, str) else int(number) for number in rows]
        self.parameter = parameter
        super().__init__(self.sentence())

    @property
    def row(self) -> int | str | None:
        """The first bad row, from 1, or the first bad question's id; None where the problem is not in a row."""
        return self.rows[0] if self.rows else None

    def sentence(self, spell: Callable[[str], str] = str) -> str:
        """The error in one sentence; `spell` turns the name of a notebook parameter into the interface's own."""
        place = ", ".join(_cut(part, 300) for part in (self.source, self._rows(), self._column()) if part)
        fix = self.fix
        if self.parameter and self.source and MARK not in self.fix:
            fix = f"{fix or 'name the right one'} by {parameter(self.parameter)}"
        subject = f"{place}: " if place else f"{parameter(self.parameter)} " if self.parameter else ""
        subject, problem, fix = (
            _spelled(part, spell) for part in (subject, self.problem, fix and f"; {_cut(fix, 400)}")
        )
        text = _cut(subject + _cut(problem, max(300, LONGEST - len(subject) - len(fix))) + fix, LONGEST)
        return text if text.endswith((".", "?", ")", "…")) else f"{text}."

    def entries(self, spell: Callable[[str], str] = str) -> list[dict[str, object]]:
        """Return the error as programs read it, an entry for each of the rows that the sentence names."""
        count = f" ({len(self.rows)} {self.unit}s)" if len(self.rows) > SHOWN else ""
        problem, fix = (_cut(_spelled(text, spell), LONGEST // 2) for text in (self.problem, self.fix))
        entry = {"problem": problem + count, "source": self.source, "row": None, "column": self.column, "fix": fix}
        return [{**entry, "row": row, "parameter": self.parameter} for row in self.rows[:SHOWN] or [None]]

    def _rows(self) -> str:
        if not self.rows:
            return ""
        first, others = self.rows[0], self.rows[1:SHOWN]
        more = f" and {len(self.rows) - SHOWN} more" if len(self.rows) > SHOWN else ""
        units = f"{self.unit}s" if len(self.rows) > 2 else self.unit
        also = f" (also {units} {', '.join(map(repr, others))}{more})" if others else ""
        return f"{self.unit} {first!r}{also}"

    def _column(self) -> str:
        return f"column {self.column!r}" if self.column is not None and repr(self.column) not in self.problem else ""


def _spelled(text: str, spell: Callable[[str], str]) -> str:
    parts = text.split(MARK)
    parts[1::2] = map(spell, parts[1::2])
    return visible("".join(parts)).replace("\n", "\\n")  # the name of a file may have any sign


def _cut(text: str, most: int) -> str:
    return text if len(text) <= most else f"{text[: most - 1]}…"


class DataError(BertHelpersError):
    """The data cannot be used as they are; names the file, row and column."""


class ModelError(BertHelpersError):
    """The model cannot be loaded or does not fit the task."""


class ParameterError(BertHelpersError):
    """A parameter does not exist, has the wrong type or lies outside its range."""


class TrainingError(BertHelpersError):
    """Training was stopped because going on would be useless."""


class Interrupted(TrainingError):
    """Training was ended by a signal, and saved."""

    def __init__(self, message: str, signal: int) -> None:
        super().__init__(message)
        self.signal = signal
