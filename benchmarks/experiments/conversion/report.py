"""Table and claims."""


def report(content):
    return str(content["parts"])


def faults(content):
    return []
