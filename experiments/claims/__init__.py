"""The papers' claims, a file a paper; `claim.py` says what one is made of."""
