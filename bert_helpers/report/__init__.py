"""What others read: model cards and the gallery."""
