"""A run, written while it trains. Never changes training."""
