"""Reading files and Hub data sets: from a source to raw rows."""
