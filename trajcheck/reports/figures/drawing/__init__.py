"""What figures are drawn with: axes, colours, legends, panels that several figures share."""
