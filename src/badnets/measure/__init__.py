"""Per-example outcomes and the rates made of them."""
