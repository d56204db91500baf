"""`make bench`: how fast this project is, every figure beside that of a real alternative, measured in the same run."""
