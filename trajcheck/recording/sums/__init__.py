"""Sums over the parameters and gradients of a step, on the device where they lie."""
