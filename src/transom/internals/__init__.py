"""Reading and writing inside the model, as data: what is done at which rows of a forward, and its arithmetic."""
