"""``##process``: run a cell in a process of its own, beside the queue and free of the GIL."""
