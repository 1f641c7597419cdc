"""Nothing here that imports another library is imported by the tests."""

collect_ignore = ["make.py", "peers"]
