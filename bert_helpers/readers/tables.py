"""The formats of tables of texts. The first that recognises a file reads it."""

from bert_helpers.readers.annotations import ANNOTATIONS
from bert_helpers.readers.class_folders import CLASS_FILES, CLASS_FOLDERS
from bert_helpers.readers.delimited import DELIMITED
from bert_helpers.readers.excel import EXCEL
from bert_helpers.readers.fasttext import FASTTEXT, TREC
from bert_helpers.readers.json_rows import JSON
from bert_helpers.readers.parallel import PARALLEL
from bert_helpers.readers.parquet import PARQUET

FORMATS = (FASTTEXT, TREC, PARALLEL, ANNOTATIONS, DELIMITED, JSON, PARQUET, EXCEL, CLASS_FOLDERS, CLASS_FILES)
