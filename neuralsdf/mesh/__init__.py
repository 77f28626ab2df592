"""Triangle meshes: their files, their orientation, their inside, and distances to them."""
