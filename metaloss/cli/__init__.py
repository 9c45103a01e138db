"""The `metaloss` command, one file for each subcommand."""
