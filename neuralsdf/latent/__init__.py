"""Models that learn one network for many shapes, and the data sets to train them on."""
