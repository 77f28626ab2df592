"""What several mesh formats share: their result and errors, text, XML, polygons and scenes."""
