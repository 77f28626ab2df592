"""Encoding of weights to bytes, and decoding."""
