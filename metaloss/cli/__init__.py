"""The `metaloss` command: wiring only."""
