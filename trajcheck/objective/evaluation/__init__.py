"""One evaluation of a loss: what stands in the model's place, and what it returns."""
