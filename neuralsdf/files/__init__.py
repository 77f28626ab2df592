"""Files as such: what is read from them is bounded, and what is written appears whole or not at all."""
