"""Published methods as short programs on public parts of the package."""
