"""Storage: state.sqlite, what stands in it, and the transactions that change it."""
