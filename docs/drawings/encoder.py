"""From a text to the probabilities of its classes."""

from drawing import Drawing

PIECES = ["[CLS]", "an", "un", "##for", "##get", "##table", "ending", ".", "[SEP]"]


def draw() -> Drawing:
    """Return the drawing: text, pieces, encoder, the vector of [CLS], head, logits, probabilities."""
    d = Drawing(
        *(760, 408),
        "From text to probabilities",
        "The text 'An unforgettable ending.' is split into nine pieces, [CLS] first. The pretrained encoder turns each "
        "piece into a vector. The vector of [CLS] alone goes into a new linear layer, the head, which gives two "
        "logits, -1.2 and 2.3. Softmax makes probabilities of them: negative 0.03, positive 0.97.",
    )
    left, step = 40, 76
    d.text(left, 34, "“An unforgettable ending.”", kind="strong", anchor="start")
    d.arrow(left + 35, 44, left + 35, 70)
    d.text(left + 48, 62, "tokenizer", kind="quiet", anchor="start")
    for i, piece in enumerate(PIECES):
        d.box(left + i * step, 74, step - 6, 30, piece, kind="old" if i == 0 else "plain")
        d.arrow(left + i * step + 35, 104, left + i * step + 35, 128)
        d.arrow(left + i * step + 35, 190, left + i * step + 35, 214)
        d.box(left + i * step, 218, step - 6, 26, "", kind="old" if i == 0 else "waste")
    d.box(left, 132, 9 * step - 6, 58, kind="old")
    d.text(left + 339, 156, "encoder, pretrained: 6 layers, 22.7 million weights", kind="strong")
    d.text(left + 339, 177, "each layer lets every piece look at all the others", kind="quiet")
    d.text(left + 35, 235, "vector")
    d.text(
        left + 5 * step - 10,
        266,
        "the encoder gives a vector of 384 numbers for each piece; the head reads that of [CLS] only",
        kind="quiet",
    )
    d.arrow(left + 35, 244, left + 35, 284)
    d.box(left, 288, 190, 58, kind="new")
    d.text(left + 95, 313, "head, new", kind="strong")
    d.text(left + 95, 333, "linear layer, 770 weights", kind="quiet")
    d.arrow(left + 190, 317, left + 262, 317)
    d.box(left + 266, 288, 150, 58)
    d.text(left + 341, 312, "negative  −1.2")
    d.text(left + 341, 334, "positive   2.3")
    d.text(left + 341, 366, "logits: any number", kind="quiet")
    d.arrow(left + 416, 317, left + 508, 317)
    d.text(left + 460, 307, "softmax", kind="quiet")
    d.box(left + 512, 288, 166, 58)
    d.text(left + 595, 312, "negative  0.03")
    d.text(left + 595, 334, "positive  0.97")
    d.text(left + 595, 366, "probabilities: add up to 1", kind="quiet")
    d.text(
        left,
        394,
        "Fine-tuning trains all of it: the new head and the pretrained encoder.",
        kind="quiet",
        anchor="start",
    )
    return d


if __name__ == "__main__":
    draw().write(__file__)
