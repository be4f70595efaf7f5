"""What a threshold decides when one class is rare."""

from drawing import Drawing

# Probability of the rare class, and whether the row is of it
ROWS = [(0.04, 0), (0.06, 0), (0.08, 0), (0.11, 0), (0.13, 0), (0.16, 0), (0.2, 0), (0.24, 1), (0.28, 0), (0.33, 1),
        (0.39, 1), (0.45, 1)]  # fmt: skip


def draw() -> Drawing:
    """Return the drawing: rows along a line of probabilities, with two thresholds."""
    low = 0.22
    found = sum(rare for p, rare in ROWS if p > low)
    alarms = sum(not rare for p, rare in ROWS if p > low)
    d = Drawing(
        *(760, 196),
        "What a threshold decides",
        f"Twelve rows along a line by their probability of the rare class. All are below 0.5, so it finds none "
        f"of the four rare rows. At {low} all {found} are found, with {alarms} false alarm.",
    )
    left, width = 40, 680
    d.arrow(left, 104, left + width, 104)
    for p, rare in ROWS:
        d.box(left + width * p - 9, 80, 18, 18, kind="new" if rare else "old")
    for p, top, text in ((low, 8, f"threshold {low}: {found} of 4 found, {alarms} false alarm"),
                         (0.5, 36, "threshold 0.5: none of 4 found")):  # fmt: skip
        d.path(f"M {left + width * p} {top + 6} L {left + width * p} 112")
        d.text(left + width * p + 6, top + 12, text, anchor="start")
    for p in (0, 0.25, 0.5, 0.75):
        d.text(left + width * p, 128, f"{p:g}", kind="quiet")
    d.text(left + width, 128, "1", kind="quiet")
    d.text(left, 152, "probability of the rare class", kind="quiet", anchor="start")
    d.text(left, 178, "Orange: rows of the rare class. Blue: the others.", kind="quiet", anchor="start")
    return d


if __name__ == "__main__":
    draw().write(__file__)
