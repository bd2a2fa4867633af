"""``zmon push``: send written files to Anodot, each sample once. files → plan → run, recorded in a ledger."""
