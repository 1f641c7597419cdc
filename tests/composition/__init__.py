"""Every way in which people put the package together with what they have."""
