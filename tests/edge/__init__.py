"""What comes out for what users really pass: from `publish()` to points, seen from outside."""
