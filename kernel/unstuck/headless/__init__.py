"""Notebooks run without a frontend; the modules are imported by those who need them."""
