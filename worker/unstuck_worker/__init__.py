"""The process that runs cells: an IPython shell behind three lanes."""
