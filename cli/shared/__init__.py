"""Shared by the commands: options, output, signals."""
