"""Built-in sinks, one per file. The collector loads every file of this folder."""
