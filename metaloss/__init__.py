"""metaloss: learn the loss function itself, online or offline."""

__version__ = "0.1.0"
