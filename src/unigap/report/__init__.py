"""Records to tables and pages; every number comes from `summary` and `unigap.gap`."""
