"""The family: the invariants of each rule, by arithmetic."""
