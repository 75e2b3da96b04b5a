"""What judges a sample beside the model's own confidence: a reward model, another model, a program of the client's."""
