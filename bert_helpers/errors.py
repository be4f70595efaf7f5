"""The exceptions a caller can expect: each message names the place and the cure."""


class BertHelpersError(ValueError):
    """Base of the package's exceptions."""


class DataError(BertHelpersError):
    """The data cannot be used as they are; names the file, row and column."""


class ModelError(BertHelpersError):
    """The model cannot be loaded or does not fit the task."""


class ParameterError(BertHelpersError):
    """A parameter does not exist, has the wrong type or lies outside its range."""


class TrainingError(BertHelpersError):
    """Training was stopped because going on would be useless."""


class Interrupted(TrainingError):
    """Training was ended by a signal, and saved."""

    def __init__(self, message: str, signal: int) -> None:
        super().__init__(message)
        self.signal = signal
