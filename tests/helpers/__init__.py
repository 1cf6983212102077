"""What tests of several packages share: independent definitions, small worlds, records made by hand."""
