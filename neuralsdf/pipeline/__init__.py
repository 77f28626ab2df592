"""The conversion of a mesh to a neural field, from file to result."""
