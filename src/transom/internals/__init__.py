"""Reading and writing inside the model: what is done at which rows of a forward, and its arithmetic."""
