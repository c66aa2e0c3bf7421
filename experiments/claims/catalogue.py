"""All claims, in the order of the table."""

from __future__ import annotations

from experiments.claims import ec, eos, nwt, tzc

CLAIMS = (*tzc.CLAIMS, *nwt.CLAIMS, *ec.CLAIMS, *eos.CLAIMS)
