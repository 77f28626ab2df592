"""Triangle meshes: files, orientation, inside tests and signed distances."""
