"""What differs between the tasks, in one class and one file each; everything else is shared."""
