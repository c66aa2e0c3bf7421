"""Products of the Hessian with vectors, and both ends of its spectrum."""
