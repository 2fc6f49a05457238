"""Where slim networks run, and how fast: one module per runtime."""
