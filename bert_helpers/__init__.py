"""Fine-tune BERT, find out why training goes wrong, and measure the result with intervals."""

from bert_helpers.errors import BertHelpersError, DataError, ModelError, ParameterError, TrainingError

__version__ = "0.1.0"

__all__ = ["BertHelpersError", "DataError", "ModelError", "ParameterError", "TrainingError", "__version__"]
