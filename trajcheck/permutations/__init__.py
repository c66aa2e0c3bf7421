"""Another network's hidden units in the order in which it lies nearest to this one."""
