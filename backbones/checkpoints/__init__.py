"""Checkpoint files as people have them: what kind a file is, reading it safely, finding the weights in it."""
