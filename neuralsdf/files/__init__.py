"""File access: bounded input, and output that is written completely or not at all."""
