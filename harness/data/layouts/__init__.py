"""Ways to store a data set in a folder, one file each."""
