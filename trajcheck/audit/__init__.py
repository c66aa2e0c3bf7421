"""What is wrong with an archive, from its headers and a fixed sample of each tensor: before a number is reported."""
