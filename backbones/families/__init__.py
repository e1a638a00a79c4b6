"""Model families, each with everything that is particular to its architecture."""
