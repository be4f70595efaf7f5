"""What a bootstrap resamples, and what another training adds."""

from drawing import Drawing

ROWS = "ABCDEFGH"
DRAWS = ("ABBDEGGH", "ADDEFGHH", "BCCDFFGH")
WRONG = "BC"  # rows that the model gets wrong
OTHERS = {"seed 1": "BCF", "seed 2": "C"}  # and what models of other seeds get wrong


def rows(d: Drawing, x: float, y: float, letters: str, wrong: str = WRONG) -> str:
    """Draw test rows side by side, those that the model gets wrong in another colour; return the accuracy."""
    for i, letter in enumerate(letters):
        d.box(x + 30 * i, y, 27, 27, letter, kind="new" if letter in wrong else "old")
    return f"{sum(letter not in wrong for letter in letters) / len(letters):.2f}"


def draw() -> Drawing:
    """Return the drawing: one model and three resampled test sets; below, two more models."""
    d = Drawing(
        *(760, 318),
        "What a bootstrap resamples",
        "One model and its eight test rows, two of them wrong: accuracy 0.75. Three resampled test sets of eight rows, "
        "some rows twice, some missing, give other accuracies; their spread is the interval. Below, two more trainings "
        "with other seeds give other models, which the bootstrap does not see.",
    )
    d.text(20, 28, "one model, its test rows", kind="strong", anchor="start")
    d.text(20, 92, f"accuracy {rows(d, 20, 42, ROWS)}", anchor="start")
    d.text(400, 28, "resampled: some rows twice, some not at all", kind="strong", anchor="start")
    for i, letters in enumerate(DRAWS):
        y = 42 + 38 * i
        d.arrow(268, 56, 392, y + 14)
        d.text(655, y + 19, rows(d, 400, y, letters), anchor="start")
    d.text(400, 172, "… 2,000 times: their spread is the interval", kind="quiet", anchor="start")
    d.text(20, 212, "not in the interval: other trainings, other seeds", kind="strong", anchor="start")
    for i, (seed, wrong) in enumerate(OTHERS.items()):
        y = 226 + 34 * i
        d.text(275, y + 19, f"{seed}: {rows(d, 20, y, ROWS, wrong)}", anchor="start")
    d.text(20, 310, "Orange: rows that the model gets wrong.", kind="quiet", anchor="start")
    return d


if __name__ == "__main__":
    draw().write(__file__)
