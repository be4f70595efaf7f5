"""What padding costs: the same six texts in batches of three, made in three ways."""

from drawing import Drawing

LENGTHS, LONGEST, BATCH = [18, 62, 30, 80, 25, 44], 96, 3  # tokens


def draw() -> Drawing:
    """Return the drawing: three panels with a bar for each text, its padding in grey, and the share that is padding."""
    ways = {
        f"every text to {LONGEST}": (LENGTHS, LONGEST),
        "each batch to its longest": (LENGTHS, 0),
        "similar lengths together": (sorted(LENGTHS), 0),
    }
    shares = {name: _share(*way) for name, way in ways.items()}
    d = Drawing(
        *(760, 238),
        "What padding costs",
        f"Six texts of {', '.join(map(str, LENGTHS))} tokens in two batches of three. Share of the computed positions "
        "that is padding: " + "; ".join(f"{name}, {share:.0%}" for name, share in shares.items()) + ".",
    )
    for panel, (name, (lengths, pad_to)) in enumerate(ways.items()):
        left = 30 + panel * 244
        d.text(left, 30, name, kind="strong", anchor="start")
        for row, length in enumerate(lengths):
            batch = lengths[row // BATCH * BATCH :][:BATCH]
            y = 46 + row * 24 + row // BATCH * 12
            d.box(left, y, 2.1 * (pad_to or max(batch)), 18, kind="waste")
            d.box(left, y, 2.1 * length, 18, kind="old")
            d.text(left + 6, y + 13, str(length), kind="quiet", anchor="start")
        d.text(left, 222, f"{shares[name]:.0%} of the work is padding", anchor="start")
    return d


def _share(lengths: list[int], pad_to: int) -> float:
    batches = [lengths[i : i + BATCH] for i in range(0, len(lengths), BATCH)]
    return 1 - sum(lengths) / sum(len(batch) * (pad_to or max(batch)) for batch in batches)


if __name__ == "__main__":
    draw().write(__file__)
