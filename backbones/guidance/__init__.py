"""What a model's answers are compared by, in synthesis and in training."""
