"""Networks that are trained under a loss."""
