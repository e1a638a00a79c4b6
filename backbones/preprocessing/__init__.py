"""From picture files to a model's input and back."""
