"""From words and their tags to pieces and their labels."""

from drawing import Drawing

WORDS = {"Dunne": ("B-PER", ["dunne"]), "left": ("O", ["left"]),
         "Wesselbruch": ("B-LOC", ["wes", "##sel", "##br", "##uch"])}  # fmt: skip


def draw() -> Drawing:
    """Return the drawing: three rows, words with tags, pieces, labels."""
    d = Drawing(
        *(760, 252),
        "Words, pieces, labels",
        "Three words with tags: Dunne B-PER, left O, Wesselbruch B-LOC. Eight pieces: [CLS], dunne, left, wes, ##sel, "
        "##br, ##uch, [SEP]. Labels: the first piece of each word carries the word's tag; [CLS], [SEP] and the other "
        "three pieces of Wesselbruch get -100.",
    )
    left, step = 108, 80
    for y, name in ((55, "words, tags"), (130, "pieces"), (200, "labels")):
        d.text(left - 12, y, name, kind="quiet", anchor="end")
    labels, place = [("[CLS]", "−100")], 1
    for word, (tag, pieces) in WORDS.items():
        width = len(pieces) * step - 8
        d.box(left + place * step, 28, width, 46, kind="old")
        d.text(left + place * step + width / 2, 48, word, kind="strong")
        d.text(left + place * step + width / 2, 66, tag, kind="quiet")
        labels += [(piece, tag if i == 0 else "−100") for i, piece in enumerate(pieces)]
        place += len(pieces)
    labels.append(("[SEP]", "−100"))
    for i, (piece, label) in enumerate(labels):
        x, kind = left + i * step, "waste" if label == "−100" else "old"
        if 0 < i < len(labels) - 1:
            d.arrow(x + 36, 74, x + 36, 107)
        d.box(x, 110, step - 8, 30, piece, kind=kind)
        d.arrow(x + 36, 140, x + 36, 177)
        d.box(x, 180, step - 8, 30, label, kind=kind)
    d.text(left, 238, "−100: the loss ignores this piece. Each word counts once, whatever its number of pieces.",
           kind="quiet", anchor="start")  # fmt: skip
    return d


if __name__ == "__main__":
    draw().write(__file__)
