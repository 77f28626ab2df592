"""Signed distance fields: queries, and extraction of surfaces."""
