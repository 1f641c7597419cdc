"""One trajectory on one device and on many."""
