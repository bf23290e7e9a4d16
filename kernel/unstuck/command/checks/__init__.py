"""What ``unstuck doctor`` looks at: a check takes what it looks at, and gives findings."""
