"""Stages: the pieces of work that a plan consists of, and how each is done."""
