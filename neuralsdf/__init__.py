"""neuralsdf: triangle meshes as small neural signed distance fields."""
