"""What a backend runs: networks, tapes of instructions, primitive solids, optimizers."""
