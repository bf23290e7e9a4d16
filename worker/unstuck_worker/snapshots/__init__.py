"""Copies of the worker that wait beside it: when, how, and what becomes of them."""
