"""What runs a model: the interface, the local engine behind it, the library of model roots."""
