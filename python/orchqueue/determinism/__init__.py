"""Keys, receipts and what checks them."""
