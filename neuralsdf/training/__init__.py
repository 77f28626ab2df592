"""Samples of a signed distance, and networks fitted to them."""
