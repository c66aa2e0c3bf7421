"""The formulas of the columns, as the papers have them: each with its declaration, shapes, sign, range and source."""
