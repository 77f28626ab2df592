"""How far a field is from the mesh that it was made from."""
