"""Inner products of vectors: which, as programs, run by the compiled loop or by numpy. Knows no run."""
