"""An analysis in rows of quantities: one row a reference and sample, as a table of a paper has them."""
