"""Statistics of the understanding-generation gap: numpy, scipy and records only."""
