"""The old name of `fixes`, until notebook 2 has the new one."""

from bert_helpers.diagnosis.fixes import augment  # noqa: F401
