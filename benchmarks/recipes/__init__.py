"""Published methods as short programs on parts of the package."""
