"""The commands: parse, call the library, print; one file per command."""
