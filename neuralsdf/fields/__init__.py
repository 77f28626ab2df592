"""Signed distance fields: what they answer, their queries, and their surfaces."""
