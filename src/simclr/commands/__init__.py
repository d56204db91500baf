"""Subcommands of `simclr`, one a module: `main` reads its arguments, and only then imports what computes."""
