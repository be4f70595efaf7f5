"""Write CoNLL-2003 as texts with character spans, one JSON Lines file per split.

python benchmarks/conll_spans.py CONLL_FOLDER NEW_FOLDER
python -m bert_helpers train ner --data NEW_FOLDER --words blanks --output-dir results/spans
"""

import json
import sys
from itertools import accumulate
from pathlib import Path

from seqeval.metrics.sequence_labeling import get_entities

from bert_helpers.tasks.registry import TASKS

source, target = sys.argv[1:]
Path(target).mkdir(parents=True, exist_ok=True)
for name, split in TASKS["ner"].load(source).items():
    tag_names = split.features["ner_tags"].feature.names
    with Path(target, f"{name}.jsonl").open("w", encoding="utf-8") as file:
        for row in split:
            starts = list(accumulate((len(word) + 1 for word in row["tokens"]), initial=0))
            entities = get_entities([tag_names[tag] for tag in row["ner_tags"]])
            spans = [[starts[first], starts[last + 1] - 1, kind] for kind, first, last in entities]
            file.write(json.dumps({"text": " ".join(row["tokens"]), "label": spans}) + "\n")
