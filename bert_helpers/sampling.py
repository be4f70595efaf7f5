"""Old place of `data.subsample` and `data.thin_out`, until the notebooks have the new one."""

from bert_helpers.data import subsample, thin_out

__all__ = ["subsample", "thin_out"]
