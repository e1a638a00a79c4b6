"""The digits data and the training of the models that are shipped with their weights."""
