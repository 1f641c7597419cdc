"""What is not there without cosmic-ray is not looked into for examples."""

collect_ignore = ["generated.py"]
