"""Built-in metrics, one family per file. The collector loads every file of this folder."""
