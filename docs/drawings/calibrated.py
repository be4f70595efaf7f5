"""A calibrated probability, and an overconfident one."""

from drawing import Drawing


def draw() -> Drawing:
    """Return the drawing: ten texts of which the model is 90% sure, for two models."""
    d = Drawing(
        *(760, 176),
        "A calibrated probability",
        "Ten texts of which a model is 90% sure. Of the calibrated model's ten, nine are right. Of the overconfident "
        "model's ten, seven are right.",
    )
    for top, right, name in ((20, 9, "calibrated"), (88, 7, "overconfident")):
        d.text(20, top + 24, name, kind="strong", anchor="start")
        d.text(20, top + 44, "ten texts, each 90% sure", kind="quiet", anchor="start")
        for i in range(10):
            d.box(210 + 36 * i, top + 6, 32, 36, "✓" if i < right else "✗", kind="old" if i < right else "new")
        d.text(584, top + 30, f"right: {right} of 10", anchor="start")
    d.text(20, 164, "One text cannot be calibrated or not; many texts of similar confidence can.", kind="quiet",
           anchor="start")  # fmt: skip
    return d


if __name__ == "__main__":
    draw().write(__file__)
