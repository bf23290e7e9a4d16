"""Copies of the worker that wait beside it: when one is taken, how, and how it becomes the worker."""
