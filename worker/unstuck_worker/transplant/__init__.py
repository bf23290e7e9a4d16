"""Take the variables of a session to another process, or to a file and back."""
