"""How tags are written: their spelling, and the scheme that marks where an entity begins. All become IOB2.

In IOB2 every entity begins with B-, in IOB1 only one that follows another of its type. BIOES also marks last (E-) and
single (S-) words. IO does not mark beginnings (Ramshaw and Marcus 1995; Tjong Kim Sang and Veenstra 1999).
"""

import re
from collections.abc import Collection, Iterator, Sequence
from itertools import pairwise

from bert_helpers.errors import DataError

TAG = re.compile(r"O|[BIES]-\S.*")
WRITE_TAGS = "write O, or prefix and type as B-PER"
PREFIXES = dict(zip("BIMELSUW", "BIIEESSS", strict=True))  # BILOU and BMES have other names for those of BIOES
ONE_TYPE = "ENTITY"  # the type of tags that are only a prefix
BRACKETS = re.compile(r"(\([^()*\s]+)*\*?\)*|-")


# --- spelling ----------------------------------------------------------------------------------------------


class TagError(DataError):
    """Values that are not tags; `tags` has all of them."""

    def __init__(self, tags: Collection[str]) -> None:
        self.tags = set(tags)
        super().__init__(f"{next(iter(tags))!r} is not a tag", fix=WRITE_TAGS)


def read_spelling(tags: Collection[str]) -> tuple[dict[str, str], str]:
    """Return each tag of a source as O or prefix and type, and a note on other spellings.

    These are B_PER and PER-B, lower-case letters, the letters of BILOU and BMES, types without a prefix (neighbours of
    one type are then one entity), and prefixes without a type. Raises TagError with those that are none of these.

    >>> read_spelling(["O", "U-PER", "L_LOC"])
    ({'O': 'O', 'U-PER': 'S-PER', 'L_LOC': 'E-LOC'}, "'U-PER' as S-PER, 'L_LOC' as E-LOC")
    >>> read_spelling(["O", "PER"])
    ({'O': 'O', 'PER': 'I-PER'}, "types without a prefix ('PER'): neighbours of one type are one entity")
    """
    table = {tag: "O" for tag in tags if tag in ("O", "o")}
    inside = [tag for tag in tags if tag not in table]
    letters = "BIMELSUW" + ("bimelsuw" if "o" in table else "bi")  # next to an upper-case O, "e-mail" is a type
    before, after = rf"([{letters}])[-_:](\S.*)", rf"(\S.*)[-_]([{letters}])"
    if all(re.fullmatch(after, tag) for tag in inside) and not all(re.fullmatch(before, tag) for tag in inside):
        parts = {tag: re.fullmatch(after, tag).group(2, 1) for tag in inside}
    else:
        parts = {tag: match.groups() for tag in inside if (match := re.fullmatch(before, tag))}
    if not parts and table and all(tag in letters for tag in inside):
        parts = {tag: (tag, ONE_TYPE) for tag in inside}
    elif not parts and table and all(re.search(r"[^\W\d_]", tag) for tag in inside):
        bare = {tag: f"I-{tag}" for tag in inside}
        note = f"types without a prefix ({', '.join(map(repr, inside[:3]))}): neighbours of one type are one entity"
        return {**table, **bare}, note * bool(bare)
    if bad := [tag for tag in inside if tag not in parts]:
        raise TagError(bad)
    table |= {tag: f"{PREFIXES[prefix.upper()]}-{kind}" for tag, (prefix, kind) in parts.items()}
    return table, ", ".join([f"{tag!r} as {read}" for tag, read in table.items() if tag != read][:3])


def read_brackets(tags: Sequence[str]) -> list[str]:
    """Convert a sentence's brackets, as in OntoNotes, to IOB2; of nested brackets, the outer ones count.

    >>> read_brackets(["(ORG*", "*", "*)", "(GPE)", "*"])
    ['B-ORG', 'I-ORG', 'I-ORG', 'B-GPE', 'O']
    """
    found, depth, kind = [], 0, ""
    for tag in tags:
        begins = depth == 0 and "(" in tag
        kind = re.split(r"[(*)]", tag)[1] if begins else kind
        found.append(f"B-{kind}" if begins else f"I-{kind}" if depth else "O")
        depth += tag.count("(") - tag.count(")")
    return found


# --- schemes -----------------------------------------------------------------------------------------------


def find_scheme(sequences: Sequence[Sequence[str]]) -> str:
    """Find the scheme of tags: "BIOES", "IOB2", "IOB1" or "IO".

    If some entities begin with B- and others with I-, the scheme is IOB2 with slips, read as conlleval does: in
    `to_iob2`, an I- that continues no entity begins one. Raises SequenceError with all tags that are illegal in BIOES,
    or with all E- and S- if those are fewer: then the scheme of the other tags is IOB2.
    """
    prefixes = {tag[0] for tags in sequences for tag in tags}
    if prefixes & {"E", "S"}:
        places = list(_violations(sequences))
        strays = [(i, j) for i, tags in enumerate(sequences) for j, tag in enumerate(tags) if tag[0] in "ES"]
        if places:
            raise SequenceError(*min(("BIOES", places), ("IOB2", strays), key=lambda pair: len(pair[1])), sequences)
        return "BIOES"
    if "B" not in prefixes:
        return "IO"
    needless = any(tag[0] == "B" and before[2:] != tag[2:] for before, tag in _pairs(sequences))
    return "IOB2" if needless or not slips(sequences) else "IOB1"


class SequenceError(DataError):
    """Tags that are illegal at their position; `places` has the sequence and position of each, from 0."""

    def __init__(self, scheme: str, places: list[tuple[int, int]], sequences: Sequence[Sequence[str]]) -> None:
        self.places = places
        sequence, position = places[0]
        before = sequences[sequence][position - 1] if position else "the beginning"
        problem = f"{sequences[sequence][position]} after {before} is illegal in {scheme}, the scheme of the other tags"
        super().__init__(problem, fix="correct it")


def _pairs(sequences: Sequence[Sequence[str]]) -> Iterator[tuple[str, str]]:
    return (pair for tags in sequences for pair in pairwise(["O", *tags]))


def slips(sequences: Sequence[Sequence[str]]) -> int:
    """Count the I- tags that do not continue an entity of their type."""
    return sum(tag[0] == "I" and before[2:] != tag[2:] for before, tag in _pairs(sequences))


def _violations(sequences: Sequence[Sequence[str]]) -> Iterator[tuple[int, int]]:
    for number, tags in enumerate(sequences):
        for position, (before, tag) in enumerate(pairwise(["O", *tags, "O"])):
            inside = before[0] in "BI"
            if (tag[0] in "IE") != inside or (inside and before[2:] != tag[2:]):
                yield number, min(position, len(tags) - 1)


def to_iob2(tags: Sequence[str], scheme: str) -> list[str]:
    """Write the same entities in IOB2 (see `find_scheme`).

    >>> to_iob2(["I-PER", "I-PER", "B-PER", "O"], "IOB1")
    ['B-PER', 'I-PER', 'B-PER', 'O']
    >>> to_iob2(["S-LOC", "B-PER", "E-PER"], "BIOES")
    ['B-LOC', 'B-PER', 'I-PER']
    """
    if scheme == "BIOES":
        return [{"S": "B", "E": "I"}.get(tag[0], tag[0]) + tag[1:] for tag in tags]
    begins = [tag[0] == "I" and before[2:] != tag[2:] for before, tag in pairwise(["O", *tags])]
    return [f"B{tag[1:]}" if begin else tag for begin, tag in zip(begins, tags, strict=True)]


def tag_names(sequences: Sequence[Sequence[str]]) -> list[str]:
    """List O, then B- and I- of every type that occurs, types sorted."""
    types = sorted({tag[2:] for tags in sequences for tag in tags if tag != "O"})
    return ["O", *(f"{prefix}-{kind}" for kind in types for prefix in "BI")]
