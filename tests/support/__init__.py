"""What tests share, one file a purpose."""
