"""``python -m unstuck`` is the command ``unstuck``."""

from unstuck.command import main

if __name__ == "__main__":
    main(prog_name="python -m unstuck")
