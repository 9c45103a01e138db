"""When θ is reset, how long the unroll is, when φ moves."""
