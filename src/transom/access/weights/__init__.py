"""How much of each weight matrix a project, and a person, has been told of."""
