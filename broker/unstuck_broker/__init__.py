"""The process that owns the sockets: it routes, supervises the worker, and always answers."""
