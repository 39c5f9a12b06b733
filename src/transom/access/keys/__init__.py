"""From the key in a request to its caller, and to what that may."""
