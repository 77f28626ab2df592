"""What the benchmarks of latent models share: data sets, trainings, measurements, and verdicts on claims."""
