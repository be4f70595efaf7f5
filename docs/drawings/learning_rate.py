"""Both ways a learning rate fails."""

from itertools import pairwise

from drawing import Drawing


def valley(d: Drawing, left: int, title: str, points: list[tuple[float, float]], note: str) -> None:
    """Draw a valley with the loss of each step on it."""
    d.text(left + 110, 28, title, kind="strong")
    d.path(f"M {left} 60 Q {left + 110} 310 {left + 220} 60")
    for (x, y), (to_x, to_y) in pairwise(points):
        d.arrow(left + x, y, left + to_x, to_y)
    for i, (x, y) in enumerate(points):
        d.box(left + x - 5, y - 5, 10, 10, kind="new" if i == len(points) - 1 else "old")
    d.text(left + 110, 218, note, kind="quiet")


def draw() -> Drawing:
    """Return the drawing: three valleys, with steps too long, of the right size, too short."""
    d = Drawing(
        *(760, 252),
        "Both ways a learning rate fails",
        "Three valleys, the loss over a weight. With steps that are too long the path jumps from side to side, near "
        "the top. With steps of the right size it comes to the bottom. With steps that are too short it has hardly "
        "left its start when training ends.",
    )
    valley(d, 20, "too high", [(30, 119), (196, 108), (18, 98), (206, 90)], "the loss jumps and does not fall")
    right = [(24, 107), (52, 148), (78, 171), (98, 183), (112, 185)]
    valley(d, 270, "about right", right, "the loss falls, and settles")
    valley(d, 520, "too low", [(24, 107), (27, 112), (30, 117)], "the loss has hardly begun to fall")
    d.text(20, 242, "Upward: loss. Sideways: one weight. Each square is a step, the last one in another colour.",
           kind="quiet", anchor="start")  # fmt: skip
    return d


if __name__ == "__main__":
    draw().write(__file__)
