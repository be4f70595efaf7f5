"""Windows over a long text."""

from drawing import Drawing


def draw() -> Drawing:
    """Return the drawing: a long text with an answer, and three windows that overlap."""
    d = Drawing(
        *(760, 232),
        "Windows over a long text",
        "A long text with an answer in it. Three windows of equal length, each beginning with the question; "
        "neighbouring windows share a piece of the text, the stride. The answer is cut by the end of the first window "
        "and complete in the second.",
    )
    left, unit, length, shared = 110, 62, 4, 1
    d.text(left - 10, 42, "text", kind="quiet", anchor="end")
    d.box(left, 22, 10 * unit, 30)
    d.box(left + 3.55 * unit, 22, 0.9 * unit, 30, "answer", kind="new")
    for i in range(3):
        x, y = left + i * (length - shared) * unit, 76 + 40 * i
        d.text(left - 10, y + 20, f"window {i + 1}", kind="quiet", anchor="end")
        d.box(x, y, length * unit, 30, kind="old")
        if i < 2:
            d.box(x + (length - shared) * unit, y, shared * unit, 30, kind="waste")
        if i:
            d.box(x, y, shared * unit, 30, kind="waste")
    d.box(left + 3.55 * unit, 76, 0.45 * unit, 30, "ans", kind="new")
    d.box(left + 3.55 * unit, 116, 0.9 * unit, 30, "answer", kind="new")
    d.text(left, 220, "Grey: what two windows share (the stride). Each window begins with the question.", kind="quiet",
           anchor="start")  # fmt: skip
    return d


if __name__ == "__main__":
    draw().write(__file__)
