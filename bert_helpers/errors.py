"""The exceptions a caller can expect, and the one place that turns them into sentences."""

import re
from collections.abc import Callable, Sequence

MARK = "\x1a"  # encloses the name of a parameter inside a text; no user's text contains this control character
SHOWN = 10  # rows that a message names; the others are counted
LONGEST = 1_900  # characters of a sentence; only foreign text is cut, such as a type with a thousand fields

# Control characters except tab and line feed, marks of writing direction, and lone surrogates
ACTIVE = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069\ud800-\udfff]")


def visible(text: str) -> str:
    r"""Return a text that is safe on a terminal: characters that would act there are escaped as in JSON.

    >>> visible("a\x1b[31mb")
    'a\\u001b[31mb'
    """
    return ACTIVE.sub(lambda found: f"\\u{ord(found[0]):04x}", text)


def counted(number: int, unit: str) -> str:
    """Return a number with its unit: "1 row", "2 rows"."""
    return f"{number} {unit}" + "s" * (number != 1)


def parameter(name: str) -> str:
    """Mark a parameter's name inside the text of an error, so that each interface can spell it in its own way."""
    return f"{MARK}{name}{MARK}"


class BertHelpersError(ValueError):
    """Base of the package's exceptions: what is wrong, where, and how to fix it, as fields.

    `problem` and `fix` are clauses without a full stop; `source` is the file, run or model; `row` is the
    number of one bad row or of all, from 1, counted in `unit`s, or their ids; `column` is the user's name for the
    column; `parameter` is the notebook parameter at fault. `str(error)` spells parameters as notebooks do.
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
        """The first bad row, from 1, or the id of the first bad question; None if the problem is not in a row."""
        return self.rows[0] if self.rows else None

    def sentence(self, spell: Callable[[str], str] = str) -> str:
        """Return the error as one sentence; `spell` turns the name of a notebook parameter into the interface's own."""
        column = f"column {self.column!r}" if self.column is not None and repr(self.column) not in self.problem else ""
        place = ", ".join(_cut(part, 300) for part in (self.source, self._rows(), column) if part)
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
        """Return the error for programs: one entry for each row that the sentence names."""
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


def _spelled(text: str, spell: Callable[[str], str]) -> str:
    parts = text.split(MARK)
    parts[1::2] = map(spell, parts[1::2])
    return visible("".join(parts)).replace("\n", "\\n")  # a file name may contain any character


def _cut(text: str, most: int) -> str:
    return text if len(text) <= most else f"{text[: most - 1]}…"


class DataError(BertHelpersError):
    """The data cannot be used as they are; names the file, row and column."""


class ModelError(BertHelpersError):
    """The model cannot be loaded or does not fit the task."""


class ParameterError(BertHelpersError):
    """A parameter does not exist, has the wrong type or lies outside its range."""


class TrainingError(BertHelpersError):
    """Training was stopped because it could not usefully go on."""


class Interrupted(TrainingError):
    """A signal ended the training, whose state was saved."""

    def __init__(self, message: str, signal: int) -> None:
        super().__init__(message)
        self.signal = signal
