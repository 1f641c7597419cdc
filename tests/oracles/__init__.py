"""What other libraries do, frozen, so that tests need none of them."""
